// What the loss says of the taps of a convolution of small groups: of each tap the sum, over output pixels, of what it sees
// times what the loss says of the pixel.

#pragma once

#include "columns.h"

// Some rows of taps, from as many rows of the image: each column of these is read once, for all pixels that see it.
template <typename T, int kw, int sw, int rows>
void slide_back(const Step *s, const Row &o, const float *const *in, float *const *sums, const float *given) {
    constexpr int live = (kw - 1) / sw + 1;
    const L pitch = o.planes * o.channels, first = -o.x, end = std::min(s->w - o.x, (o.pixels - 1) * sw + kw);
    T sum[rows][kw], d[live] = {};  // d: of the pixels that see the column, the newest last
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < kw; j++) sum[r][j] = load<T>(sums[r] + j * o.channels);
    for (L p = 0; p < o.pixels + live - 1; p++) {
        d[live - 1] = p < o.pixels ? load<T>(given + p * s->m) : T{};
#pragma GCC unroll 2
        for (int e = 0; e < sw; e++) {
            const L q = p * sw + e;
            if (q < first || q >= end) continue;
#pragma GCC unroll 4
            for (int r = 0; r < rows; r++) {
                const T x = load<T>(in[r] + q * pitch);
#pragma GCC unroll 8
                for (int i = 0; i < live; i++)
                    if (e + (live - 1 - i) * sw < kw) sum[r][e + (live - 1 - i) * sw] += x * d[i];
            }
        }
#pragma GCC unroll 8
        for (int i = 0; i + 1 < live; i++) d[i] = d[i + 1];
    }
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < kw; j++) store(sums[r] + j * o.channels, sum[r][j]);
}

// One tap, of any stride and dilation.
template <typename T>
void tap_back(const Step *s, const Row &o, L tap, const float *in, float *sum, const float *given) {
    T total = load<T>(sum);
    for (L p = 0; p < o.pixels; p++) {
        const L q = p * s->sw + tap * s->dw;
        if (q >= -o.x && q < s->w - o.x) total += load<T>(in + q * o.planes * o.channels) * load<T>(given + p * s->m);
    }
    store(sum, total);
}

template <typename T, int kw, int sw>
INLINE bool slide_back_if(const Step *s, const Row &o, L rows, const float *const *in, float *const *sums,
                          const float *given) {
    if (s->kw != kw || s->sw != sw || s->dw != 1) return false;
    if (kw == 3 && rows == 3) {
        slide_back<T, kw, sw, kw == 3 ? 3 : 1>(s, o, in, sums, given);
    } else {
        for (L r = 0; r < rows; r++) slide_back<T, kw, sw, 1>(s, o, in + r, sums + r, given);
    }
    return true;
}

// A vector of channels, or one, from the rows of the image that the pixels see.
template <typename T>
INLINE void channels_back(const Step *s, const Row &o, L rows, const float *const *in, float *const *sums,
                          const float *given) {
    if (slide_back_if<T, 3, 1>(s, o, rows, in, sums, given) || slide_back_if<T, 3, 2>(s, o, rows, in, sums, given) ||
        slide_back_if<T, 5, 1>(s, o, rows, in, sums, given) || slide_back_if<T, 5, 2>(s, o, rows, in, sums, given) ||
        slide_back_if<T, 7, 1>(s, o, rows, in, sums, given))
        return;
    for (L r = 0; r < rows; r++)
        for (L j = 0; j < s->kw; j++) tap_back<T>(s, o, j, in[r], sums[r] + j * o.channels, given);
}

// sums (planes, kh, kw, channels) += what the pixels of a row say.
void row_back(const Step *s, const Row &o, const float *given, float *sums) {
    const L pitch = o.planes * o.channels;
    const float *in[TAPS];
    float *to[TAPS];
    for (L k = 0; k < o.planes; k++)
        each_vector(0, o.channels, [&](L c, auto like) INLINE_LAMBDA {
            L rows = 0;
            for (L i = 0; i < s->kh; i++) {
                L iy = o.y + i * s->dh;
                if (iy < 0 || iy >= s->h) continue;
                in[rows] = o.image + (iy * s->w + o.x) * pitch + k * o.channels + c;
                to[rows++] = sums + ((k * s->kh + i) * s->kw) * o.channels + c;
            }
            channels_back<decltype(like)>(s, o, rows, in, to, given + c);
        });
}
