// Convolutions, or one of small groups and the dense one behind it, and pools, of fp32 images with channels last.
//
// What each output pixel is made of (its columns: its patch of the image, or what the grouped convolution gives there)
// is written for a few dozen pixels at a time, into a tile that stays in the second cache, and multiplied from there
// with the weights: nothing between the two convolutions goes through memory.

#include <atomic>
#include <memory>
#include <new>

#include <omp.h>

#include "gradient.h"
#include "pool.h"
#include "product.h"

constexpr L TILE = 320 * 1024;  // bytes of a tile
constexpr L MOST = 192;         // pixels of a tile
constexpr L LEAST = 4 * ROWS;   // pixels below which threads share a tile, each for a part of the channels
constexpr L HEAVY = 1 << 20;    // weights that do not stay in a cache, so that each tile reads them from memory
constexpr L TURNS = 8;          // tiles a thread, if they are not too small then

static thread_local Kept tile_here;

// y, from one of its numbers to another, becomes clamp(y + residual).
static void add(const Step *o, L from, L to) {
    for (; from + LANES <= to; from += LANES)
        store(o->y + from, clamp(load(o->y + from) + load(o->residual + from), o->low, o->high));
    for (; from < to; from++) {
        float sum = o->y[from] + o->residual[from];
        o->y[from] = sum < o->low ? o->low : sum > o->high ? o->high : sum;
    }
}

// Without weights a depthwise or grouped convolution alone, or a pool. Returns whether there was memory for the tiles.
static bool step(const Step *o) {
    const L pixels = o->n * o->oh * o->ow, panels = (o->m + WIDE - 1) / WIDE, threads = o->threads;
    if (pixels == 0) return true;
    // Of large patches a few taps at a time, so that a tile has enough pixels for the weights that each one reads.
    const L every = o->kh * o->kw, taps = pixels < LEAST * threads ? every : std::clamp(DEPTH / o->c, L(1), every);
    const L width = o->source == PATCHES ? taps * o->c : o->columns;
    const L ld = width + WIDE;  // away from powers of two, which would all fall into one set of the cache
    const L most = std::clamp(TILE / (4 * ld), LEAST, MOST);
    const L least = o->columns * o->m > HEAVY ? std::min(2 * LEAST, most) : LEAST;
    const L few = std::clamp(pixels / (TURNS * threads), least, most);  // so that no thread waits long for another
    const L turns = std::max({pixels / (few * threads), (pixels + most * threads - 1) / (most * threads), L(1)});
    const L tiles = pixels < LEAST * threads ? std::max(pixels / LEAST, L(1)) : turns * threads;
    const L parts = o->weight ? std::min(panels, (threads + tiles - 1) / tiles) : 1, tasks = tiles * parts;
    const L unit = o->weight ? ROWS : o->ow;  // tiles are of whole ones, which are the fastest
    const L units = (pixels + unit - 1) / unit, size = (units + tiles - 1) / tiles * unit;
    const bool filled = o->weight && o->source != IMAGE;

    auto run = [=](L task, float *tile) {
        L from = task / parts * units / tiles * unit, to = std::min((task / parts + 1) * units / tiles * unit, pixels);
        L begin = task % parts * panels / parts * WIDE, end = (task % parts + 1) * panels / parts * WIDE;
        float *y = o->y + from * o->m;
        const float *residual = o->residual ? o->residual + from * o->m : nullptr;
        switch (o->source) {
            case LARGEST: pool<true>(o, from, to); break;
            case MEAN: pool<false>(o, from, to); break;
            case IMAGE:
                multiply(o, o->x + from * o->c, o->c, 0, o->columns, to - from, begin, end, residual, y);
                break;
            case PATCHES:
                for (L first = 0, last; first < every; first = last) {
                    last = std::min(first + taps, every);
                    patches(o, first, last, from, to, tile, ld);
                    multiply(o, tile, ld, first * o->c, (last - first) * o->c, to - from, begin, end, residual, y);
                }
                break;
            default:
                if (!small_groups(o, from, to, o->weight ? tile : y, o->weight ? ld : o->m)) return false;
                if (o->weight)
                    multiply(o, tile, ld, 0, o->columns, to - from, begin, end, residual, y);
                else if (residual)
                    add(o, from * o->m, to * o->m);
        }
        return true;
    };

    // Each thread has neighbouring tiles, whose images overlap; who is done before others takes from theirs.
    std::unique_ptr<std::atomic<L>[]> next(new (std::nothrow) std::atomic<L>[threads]);
    std::atomic<bool> failed(!next);
    for (L t = 0; next && t < threads; t++) next[t] = tasks * t / threads;
#pragma omp parallel num_threads(threads)
    {
        float *tile = filled ? tile_here.of(4 * ld * size) : nullptr;
        if (filled && !tile) failed = true;
        for (L i = 0; i < threads && !failed; i++) {
            L owner = (omp_get_thread_num() + i) % threads, end = tasks * (owner + 1) / threads;
            for (L task = next[owner]++; task < end && !failed; task = next[owner]++)
                if (!run(task, tile)) failed = true;
        }
    }
    return !failed;
}

// What the loss says of the taps, o->y being what it says of the output. Pixels are cut into slices, with sums (planes, kh,
// kw, mid) each, so that threads don't wait for each other and the same sums come out every time.
static bool back(const Step *o, L slices, float *sums) {
    const L pixels = o->n * o->oh * o->ow, size = o->planes * o->kh * o->kw * o->mid;
    std::atomic<bool> failed(false);
#pragma omp parallel for num_threads(o->threads)
    for (L i = 0; i < slices; i++)
        if (!each_row(o, i * pixels / slices, (i + 1) * pixels / slices,
                      [&](const Row &row, L pixel) { row_back(o, row, o->y + pixel * o->m, sums + i * size); }))
            failed = true;
    return !failed;
}

extern "C" {

int64_t wide() { return WIDE; }

// What a convolution of small groups learns, added to the sums. Returns as `run` does.
int learn(const Step *o, int64_t slices, float *sums) { return !back(o, slices, sums); }

// One step after the other. Returns 0, or 1 where there is no memory for the tiles.
int run(const Step *steps, int64_t count) {
    for (L i = 0; i < count; i++)
        if (!step(steps + i)) return 1;
    return 0;
}
}
