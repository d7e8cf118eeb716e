// A convolution, or a depthwise one and the dense one behind it, of fp32 images with channels last.
//
// What each output pixel is made of (its columns: its patch of the image, or what the depthwise convolution gives there)
// is written for a few dozen pixels at a time, into a tile that stays in the second cache, and multiplied from there
// with the weights: nothing between the two convolutions goes through memory. The product keeps ROWS pixels of WIDE
// channels in registers (Goto & van de Geijn 2008, "Anatomy of High-Performance Matrix Multiplication").

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

#include <omp.h>

namespace {

using L = int64_t;
#if defined(__AVX512F__)
constexpr L LANES = 16, ROWS = 12;
#elif defined(__AVX__)
constexpr L LANES = 8, ROWS = 6;
#else
constexpr L LANES = 4, ROWS = 6;
#endif
constexpr L WIDE = 2 * LANES;
constexpr L DEPTH = 768;          // columns multiplied before the next: sums that wait stand in memory
constexpr L TILE = 256 * 1024;    // bytes of a tile
constexpr L MOST = 192;           // pixels of a tile
constexpr L LEAST = 4 * ROWS;     // pixels below which threads share a tile, each for a part of the channels
constexpr L TURNS = 8;            // tiles a thread, if they are not too small then
constexpr L TAPS = 1024;          // of a depthwise kernel, at most

typedef float V __attribute__((vector_size(4 * LANES)));
#define INLINE inline __attribute__((always_inline))

enum { IMAGE, PATCHES, DEPTHWISE };

// Written by fused.py: the same fields in the same order.
struct Conv {
    int64_t n, h, w, c;                        // the input
    int64_t oh, ow, m;                         // the output
    int64_t kh, kw, sh, sw, ph, pw, dh, dw;    // kernel, stride, padding, dilation
    int64_t columns;                           // a pixel: c, kh·kw·c or terms·c
    int64_t source, relu, terms, threads;      // relu: of what a depthwise convolution reads
    float mid_low, mid_high, low, high;        // what depthwise and dense outputs are clamped to
    const float *taps, *mid_bias;              // (terms, kh, kw, c) and (terms·c)
    const float *weight, *bias;                // (m / WIDE, columns, WIDE) and (m), m rounded up to WIDE; or null
};

INLINE V load(const float *from) {
    V v;
    memcpy(&v, from, sizeof v);
    return v;
}

INLINE void store(float *to, V v) { memcpy(to, &v, sizeof v); }

INLINE V part(const float *from, L count) {  // the first `count` of a vector
    V v = {};
    memcpy(&v, from, 4 * (size_t)count);
    return v;
}

// NaN stays NaN.
INLINE V clamp(V v, float low, float high) {
    V least = V{} + low, most = V{} + high;
    v = v < least ? least : v;
    return v > most ? most : v;
}

// ---- the product ----

// y (rows, WIDE) = clamp(bias + residual + a · b); of columns after the first DEPTH, what y holds so far is added to.
struct Step {
    const float *a, *b, *bias, *residual;
    float *y;
    L lda, ldy, depth, left;  // left: channels of y, where it is less than WIDE
    bool first, last;
    float low, high;
};

template <int rows, bool full>
void product(const Step &s) {
    const L counts[2] = {s.left < LANES ? s.left : LANES, s.left < LANES ? 0 : s.left - LANES};
    V sum[rows][2];
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < 2; j++) {
            const float *from = s.first ? s.residual : s.y;
            V v = s.first ? load(s.bias + j * LANES) : V{};
            if (from) {
                from += i * s.ldy + j * LANES;
                v += full ? load(from) : part(from, counts[j]);
            }
            sum[i][j] = v;
        }
    const float *a[rows], *b = s.b;
    for (int i = 0; i < rows; i++) a[i] = s.a + i * s.lda;
    for (L k = 0; k < s.depth; k++, b += WIDE) {
        V one = load(b), two = load(b + LANES);
#pragma GCC unroll 16
        for (int i = 0; i < rows; i++) {
            sum[i][0] += a[i][k] * one;
            sum[i][1] += a[i][k] * two;
        }
    }
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < 2; j++) {
            V v = s.last ? clamp(sum[i][j], s.low, s.high) : sum[i][j];
            float *to = s.y + i * s.ldy + j * LANES;
            if (full)
                store(to, v);
            else
                memcpy(to, &v, 4 * (size_t)counts[j]);
        }
}

template <int rows = ROWS>
INLINE void products(L count, const Step &s) {
    if (count == rows)
        s.left >= WIDE ? product<rows, true>(s) : product<rows, false>(s);
    else if constexpr (rows > 1)
        products<rows - 1>(count, s);
}

// Channels from `begin` to `end`, WIDE at a time, of `pixels` rows of columns.
void multiply(const Conv *o, const float *a, L lda, L pixels, L begin, L end, const float *residual, float *y) {
    L groups = (pixels + ROWS - 1) / ROWS, blocks = (o->columns + DEPTH - 1) / DEPTH;
    for (L block = 0; block < blocks; block++) {
        L k = block * o->columns / blocks, depth = (block + 1) * o->columns / blocks - k;
        for (L m = begin; m < end; m += WIDE) {
            const float *b = o->weight + m * o->columns + k * WIDE;
            for (L g = 0; g < groups; g++) {  // as equal as can be: a few rows by themselves would be slow
                L i = g * pixels / groups, rows = (g + 1) * pixels / groups - i;
                products(rows, {a + i * lda + k, b, o->bias + m, residual ? residual + i * o->m + m : nullptr,
                                y + i * o->m + m, lda, o->m, depth, o->m - m, block == 0, block == blocks - 1,
                                o->low, o->high});
            }
        }
    }
}

// ---- the columns ----

struct Place {
    const float *image;
    L y, x;  // of the kernel's first tap in the image
    L out_x;
};

INLINE Place place_of(const Conv *o, const float *x, L pixel) {
    L in_image = pixel % (o->oh * o->ow), out_x = in_image % o->ow;
    return {
        x + pixel / (o->oh * o->ow) * o->h * o->w * o->c,
        in_image / o->ow * o->sh - o->ph,
        out_x * o->sw - o->pw,
        out_x,
    };
}

void patches(const Conv *o, const float *x, L from, L to, float *tile, L ld) {
    for (L pixel = from; pixel < to; pixel++) {
        Place at = place_of(o, x, pixel);
        float *columns = tile + (pixel - from) * ld;
        for (L i = 0; i < o->kh; i++)
            for (L j = 0; j < o->kw; j++, columns += o->c) {
                L iy = at.y + i * o->dh, ix = at.x + j * o->dw;
                int inside = iy >= 0 && iy < o->h && ix >= 0 && ix < o->w;
                const float *here = at.image + (iy * o->w + ix) * o->c;
                for (L c = 0; c < o->c; c++) columns[c] = inside ? here[c] : 0;
            }
    }
}

template <bool relu>
INLINE V read(const float *from) {
    V v = load(from);
    return relu ? (v < V{} ? V{} : v) : v;
}

// One output pixel from the taps that fall into the image.
template <bool relu>
INLINE void one_pixel(const float *const *in, const float *const *taps, L count, const float *bias, L channels,
                      float low, float high, float *out) {
    L c = 0;
    for (; c + LANES <= channels; c += LANES) {
        V sum = load(bias + c);
        for (L t = 0; t < count; t++) sum += read<relu>(in[t] + c) * load(taps[t] + c);
        store(out + c, clamp(sum, low, high));
    }
    for (; c < channels; c++) {
        float sum = bias[c];
        for (L t = 0; t < count; t++) sum += (relu && in[t][c] < 0 ? 0 : in[t][c]) * taps[t][c];
        out[c] = sum < low ? low : sum > high ? high : sum;
    }
}

// Four neighbours whose taps all fall into the image, at stride 1: each value is read once for all four. What is left
// of the channels, fewer than LANES, is done by the caller. The next four, in the same rows, are fetched meanwhile.
template <bool relu, int kw, int count>
void four_pixels(const float *const *rows, const float *const *taps, const float *bias, L channels, float low,
                 float high, float *out, L ld) {
    for (L c = 0; c + LANES <= channels; c += LANES) {
        V sum[4] = {load(bias + c), load(bias + c), load(bias + c), load(bias + c)};
#pragma GCC unroll 8
        for (int r = 0; r < count; r++) {
            const float *in = rows[r] + c, *w = taps[r] + c;
            if (c % 16 == 0)
                for (int p = 0; p < 4; p++) __builtin_prefetch(in + (kw + 3 + p) * channels);
#pragma GCC unroll 8
            for (int j = 0; j < kw + 3; j++) {
                V v = read<relu>(in + j * channels);
#pragma GCC unroll 4
                for (int p = 0; p < 4; p++)
                    if (j - p >= 0 && j - p < kw) sum[p] += v * load(w + (j - p) * channels);
            }
        }
        for (int p = 0; p < 4; p++) store(out + p * ld + c, clamp(sum[p], low, high));
    }
}

// For as many rows as there are; kernels of 3x3 and 5x5 only.
template <bool relu, int kw, int most = kw>
INLINE void four_pixels_of(L count, const float *const *rows, const float *const *taps, const float *bias, L channels,
                           float low, float high, float *out, L ld) {
    if (count == most)
        four_pixels<relu, kw, most>(rows, taps, bias, channels, low, high, out, ld);
    else if constexpr (most > 1)
        four_pixels_of<relu, kw, most - 1>(count, rows, taps, bias, channels, low, high, out, ld);
}

template <bool relu>
void depthwise(const Conv *o, const float *x, L from, L to, float *tile, L ld) {
    const float *in[TAPS], *taps[TAPS];
    const L c = o->c;
    const bool narrow = (o->kw == 3 || o->kw == 5) && o->kh == o->kw && o->sw == 1 && o->dw == 1;
    for (L term = 0; term < o->terms; term++) {
        const float *kernel = o->taps + term * o->kh * o->kw * c, *bias = o->mid_bias + term * c;
        L step;
        for (L pixel = from; pixel < to; pixel += step) {
            Place at = place_of(o, x, pixel);
            float *out = tile + (pixel - from) * ld + term * c;
            L done = 0, count = 0;  // channels that `step` pixels have already
            step = 1;
            if (narrow && pixel + 4 <= to && at.out_x + 4 <= o->ow && at.x >= 0 && at.x + o->kw + 3 <= o->w) {
                for (L i = 0; i < o->kh; i++) {
                    L iy = at.y + i * o->dh;
                    if (iy < 0 || iy >= o->h) continue;
                    in[count] = at.image + (iy * o->w + at.x) * c;
                    taps[count++] = kernel + i * o->kw * c;
                }
                if (count) {
                    step = 4;
                    done = c - c % LANES;
                    if (o->kw == 3)
                        four_pixels_of<relu, 3>(count, in, taps, bias, c, o->mid_low, o->mid_high, out, ld);
                    else
                        four_pixels_of<relu, 5>(count, in, taps, bias, c, o->mid_low, o->mid_high, out, ld);
                }
            }
            for (L p = 0; p < step && done < c; p++) {
                count = 0;
                for (L i = 0; i < o->kh; i++)
                    for (L j = 0; j < o->kw; j++) {
                        L iy = at.y + i * o->dh, ix = at.x + p + j * o->dw;
                        if (iy < 0 || iy >= o->h || ix < 0 || ix >= o->w) continue;
                        in[count] = at.image + (iy * o->w + ix) * c + done;
                        taps[count++] = kernel + (i * o->kw + j) * c + done;
                    }
                one_pixel<relu>(in, taps, count, bias + done, c - done, o->mid_low, o->mid_high, out + p * ld + done);
            }
        }
    }
}

void columns(const Conv *o, const float *x, L from, L to, float *tile, L ld) {
    if (o->source == PATCHES)
        patches(o, x, from, to, tile, ld);
    else if (o->relu)
        depthwise<true>(o, x, from, to, tile, ld);
    else
        depthwise<false>(o, x, from, to, tile, ld);
}

}  // namespace

extern "C" {

int64_t wide() { return WIDE; }

// x (n, h, w, c), residual null or like y (n, oh, ow, m); without weights the depthwise convolution alone. Returns 0,
// or 1 where there is no memory for the tiles.
int convolve(const Conv *o, const float *x, const float *residual, float *y) {
    const L pixels = o->n * o->oh * o->ow, panels = (o->m + WIDE - 1) / WIDE, threads = o->threads;
    const L ld = o->columns + WIDE;  // away from powers of two, which would all fall into one set of the cache
    const L most = std::clamp(TILE / (4 * ld), LEAST, MOST);
    const L even = std::clamp(pixels / (TURNS * threads), LEAST, most);  // so that no thread waits long for another
    const L tiles = pixels < LEAST * threads ? std::max(pixels / LEAST, L(1)) : (pixels + even - 1) / even;
    const L parts = o->weight ? std::min(panels, (threads + tiles - 1) / tiles) : 1, tasks = tiles * parts;
    const L size = (pixels + tiles - 1) / tiles;
    const bool filled = o->weight && o->source != IMAGE;

    auto run = [=](L task, float *tile) {
        L from = task / parts * pixels / tiles, to = (task / parts + 1) * pixels / tiles;
        L begin = task % parts * panels / parts * WIDE, end = (task % parts + 1) * panels / parts * WIDE;
        if (!o->weight) {
            columns(o, x, from, to, y + from * o->m, o->m);
            return;
        }
        if (filled) columns(o, x, from, to, tile, ld);
        multiply(o, filled ? tile : x + from * o->c, filled ? ld : o->c, to - from, begin, end,
                 residual ? residual + from * o->m : nullptr, y + from * o->m);
    };

    // Each thread has neighbouring tiles, whose images overlap; who is done before others takes from theirs.
    std::unique_ptr<std::atomic<L>[]> next(new (std::nothrow) std::atomic<L>[threads]);
    std::atomic<bool> failed(!next);
    for (L t = 0; next && t < threads; t++) next[t] = tasks * t / threads;
#pragma omp parallel num_threads(threads)
    {
        const size_t bytes = filled ? (size_t)(4 * ld * size + 63) / 64 * 64 : 0;
        float *tile = filled ? static_cast<float *>(std::aligned_alloc(64, bytes)) : nullptr;
        if (filled && !tile) failed = true;
        for (L i = 0; i < threads && !failed; i++) {
            L owner = (omp_get_thread_num() + i) % threads, end = tasks * (owner + 1) / threads;
            for (L task = next[owner]++; task < end && !failed; task = next[owner]++) run(task, tile);
        }
        std::free(tile);
    }
    return failed;
}
}
