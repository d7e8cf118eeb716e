// A convolution, or a depthwise one and the dense one behind it, of fp32 images with channels last.
//
// What stands behind each output pixel (the columns: its patch of the image, or what the depthwise convolution gives
// there) is written for a few dozen pixels at a time, into a tile that stays in the second cache, and multiplied from
// there with the weights: nothing between the two convolutions goes through memory. The product keeps ROWS pixels of
// WIDE channels in registers (Goto & van de Geijn 2008, "Anatomy of High-Performance Matrix Multiplication").

#include <cstdint>
#include <cstdlib>
#include <cstring>

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
constexpr L DEPTH = 256;          // columns whose weights, for WIDE channels, stay in the first cache
constexpr L TILE = 192 * 1024;    // bytes of a tile
constexpr L MOST = 192;           // pixels of a tile
constexpr L LEAST = 4 * ROWS;     // pixels below which threads share a tile, each for a part of the channels
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
    const float *weight, *bias;                // (m / WIDE, columns, WIDE) and (m), m rounded up; null: depthwise alone
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

// y (rows, WIDE) = clamp(bias + residual + a · b), or + what y holds where columns before these were added already.
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
    const float *a = s.a, *b = s.b;
    for (L k = 0; k < s.depth; k++, b += WIDE) {
        V one = load(b), two = load(b + LANES);
#pragma GCC unroll 16
        for (int i = 0; i < rows; i++) {
            V x = V{} + a[i * s.lda + k];
            sum[i][0] += x * one;
            sum[i][1] += x * two;
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
void multiply(const Conv *o, const float *a, L lda, L pixels, L begin, L end, const float *residual,
                     float *y) {
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
INLINE void one_pixel(const float *const *in, const float *const *taps, L count, const float *bias,
                      L channels, float low, float high, float *out) {
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
// of the channels, fewer than LANES, is done by the caller.
template <bool relu, int kw>
INLINE void four_pixels(const float *const *rows, const float *const *taps, L count,
                        const float *bias, L channels, float low, float high, float *out, L ld) {
    for (L c = 0; c + LANES <= channels; c += LANES) {
        V sum[4] = {load(bias + c), load(bias + c), load(bias + c), load(bias + c)};
        for (L r = 0; r < count; r++) {
            const float *in = rows[r] + c, *w = taps[r] + c;
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

template <bool relu>
void depthwise(const Conv *o, const float *x, L from, L to, float *tile, L ld) {
    const float *in[TAPS], *taps[TAPS];
    L c = o->c, whole = c - c % LANES;
    for (L term = 0; term < o->terms; term++) {
        const float *kernel = o->taps + term * o->kh * o->kw * c, *bias = o->mid_bias + term * c;
        L step;
        for (L pixel = from; pixel < to; pixel += step) {
            Place at = place_of(o, x, pixel);
            float *out = tile + (pixel - from) * ld + term * c;
            int narrow = (o->kw == 3 || o->kw == 5) && o->sw == 1 && o->dw == 1;
            int four = narrow && pixel + 4 <= to && at.out_x + 4 <= o->ow && at.x >= 0 && at.x + o->kw + 3 <= o->w;
            step = four ? 4 : 1;
            L count = 0;
            if (four) {
                for (L i = 0; i < o->kh; i++) {
                    L iy = at.y + i * o->dh;
                    if (iy < 0 || iy >= o->h) continue;
                    in[count] = at.image + (iy * o->w + at.x) * c;
                    taps[count++] = kernel + i * o->kw * c;
                }
                if (o->kw == 3)
                    four_pixels<relu, 3>(in, taps, count, bias, c, o->mid_low, o->mid_high, out, ld);
                else
                    four_pixels<relu, 5>(in, taps, count, bias, c, o->mid_low, o->mid_high, out, ld);
                if (whole == c) continue;
            }
            for (L p = 0; p < step; p++) {
                count = 0;
                for (L i = 0; i < o->kh; i++)
                    for (L j = 0; j < o->kw; j++) {
                        L iy = at.y + i * o->dh, ix = at.x + p + j * o->dw;
                        if (iy < 0 || iy >= o->h || ix < 0 || ix >= o->w) continue;
                        L skip = four ? whole : 0;
                        in[count] = at.image + (iy * o->w + ix) * c + skip;
                        taps[count++] = kernel + (i * o->kw + j) * c + skip;
                    }
                L done = four ? whole : 0;
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

// x (n, h, w, c), residual null or like y (n, oh, ow, m). Returns 0, or 1 where there is no memory for the tiles.
int convolve(const Conv *o, const float *x, const float *residual, float *y) {
    if (o->source == DEPTHWISE && o->kh * o->kw > TAPS) return 2;
    L pixels = o->n * o->oh * o->ow, panels = (o->m + WIDE - 1) / WIDE, threads = o->threads;
    L ld = o->columns + WIDE;  // away from powers of two, which would all fall into one set of the cache
    L most = TILE / (4 * ld) < LEAST ? LEAST : TILE / (4 * ld) > MOST ? MOST : TILE / (4 * ld);
    L tiles = (pixels + most - 1) / most;
    if (tiles < threads) tiles = pixels / LEAST < threads ? pixels / LEAST : threads;
    if (tiles < 1) tiles = 1;
    tiles = tiles > threads ? (tiles + threads - 1) / threads * threads : tiles;
    L parts = o->weight && tiles < threads ? (threads + tiles - 1) / tiles : 1;
    if (parts > panels) parts = panels;
    L size = (pixels + tiles - 1) / tiles;
    int failed = 0;
#pragma omp parallel num_threads(threads)
    {
        float *tile = nullptr;
        if (o->weight && o->source != IMAGE) {
            tile = static_cast<float *>(std::aligned_alloc(64, (size_t)((4 * ld * size + 63) / 64 * 64)));
            if (!tile) {
#pragma omp atomic write
                failed = 1;
            }
        }
#pragma omp barrier
#pragma omp for schedule(dynamic)
        for (L task = 0; task < tiles * parts; task++) {
            int stop;
#pragma omp atomic read
            stop = failed;
            if (stop) continue;
            L from = task / parts * pixels / tiles, to = (task / parts + 1) * pixels / tiles;
            L begin = task % parts * panels / parts * WIDE, end = (task % parts + 1) * panels / parts * WIDE;
            if (!o->weight) {
                columns(o, x, from, to, y + from * o->m, o->m);
                continue;
            }
            if (tile) columns(o, x, from, to, tile, ld);
            multiply(o, tile ? tile : x + from * o->c, tile ? ld : o->c, to - from, begin, end,
                     residual ? residual + from * o->m : nullptr, y + from * o->m);
        }
        free(tile);
    }
    return failed;
}
}
