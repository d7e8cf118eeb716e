// The product of what output pixels are made of, row by row, with the dense weights. It keeps ROWS pixels of WIDE
// channels in registers, of the last channels one vector where that is enough (Goto & van de Geijn 2008, "Anatomy of High-Performance Matrix Multiplication").

#pragma once

#include "vector.h"

constexpr L ROWS = LANES == 16 ? 12 : 6;
constexpr L WIDE = 2 * LANES;
template <int vectors>
constexpr int TALL = vectors == 1 ? 12 : ROWS;  // pixels, of so many vectors of channels
constexpr L DEPTH = 768;  // columns multiplied before the next: sums that wait stand in memory

// y (rows, WIDE) = clamp(bias + a · b + residual), of at most DEPTH columns at a time: what y holds so far is added to.
struct Rows {
    const float *a, *b, *bias, *residual;
    float *y;
    L lda, ldy, depth, left;  // left: channels of y, where it is less than WIDE
    bool first, last;
    float low, high;
};

template <int rows, int vectors>
void product(const Rows &s) {
    V sum[rows][vectors];
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < vectors; j++) sum[i][j] = s.first ? load(s.bias + j * LANES) : V{};
    const float *a[rows], *b = s.b;
    for (int i = 0; i < rows; i++) a[i] = s.a + i * s.lda;
    for (L k = 0; k < s.depth; k++, b += WIDE) {
        V weight[vectors];
        for (int j = 0; j < vectors; j++) weight[j] = load(b + j * LANES);
#pragma GCC unroll 16
        for (int i = 0; i < rows; i++)
            for (int j = 0; j < vectors; j++) sum[i][j] += a[i][k] * weight[j];
    }
    auto each = [&](auto what) INLINE_LAMBDA {
#pragma GCC unroll 16
        for (int i = 0; i < rows; i++)
            for (int j = 0; j < vectors; j++) what(sum[i][j], i * s.ldy + j * LANES);
    };
    auto add = [&](const float *from) INLINE_LAMBDA { each([&](V &v, L at) INLINE_LAMBDA { v += load(from + at); }); };
    if (!s.first) add(s.y);
    if (s.last && s.residual) add(s.residual);
    if (s.last) each([&](V &v, L) INLINE_LAMBDA { v = clamp(v, s.low, s.high); });
    each([&](V &v, L at) INLINE_LAMBDA { store(s.y + at, v); });
}

template <int vectors, int rows = TALL<vectors>>
INLINE void product_of(L count, const Rows &s) {
    if (count == rows)
        product<rows, vectors>(s);
    else if constexpr (rows > 1)
        product_of<vectors, rows - 1>(count, s);
}

// Where y has not as many channels as the vectors: its numbers are put into whole ones, and taken back from there.
template <int vectors>
void narrow(L rows, const Rows &s) {
    constexpr L width = vectors * LANES;
    const L last = s.left - width + LANES;
    float y[TALL<vectors> * width], residual[TALL<vectors> * width];  // the rest of them stays what it was
    auto copy = [&](float *to, L ldto, const float *from, L ldfrom) {
        for (L i = 0; i < rows; i++) {
            if (vectors > 1) store(to + i * ldto, load(from + i * ldfrom));
            store_part(to + i * ldto + width - LANES, part(from + i * ldfrom + width - LANES, last), last);
        }
    };
    Rows whole = s;
    whole.y = y, whole.ldy = width;
    if (!s.first) copy(y, width, s.y, s.ldy);
    if (s.last && s.residual) copy(residual, width, s.residual, s.ldy), whole.residual = residual;
    product_of<vectors>(rows, whole);
    copy(s.y, s.ldy, y, width);
}

// All pixels of some channels, a few at a time.
template <int vectors>
void panel(L pixels, Rows s) {
    constexpr L tall = TALL<vectors>;
    const L groups = (pixels + tall - 1) / tall;
    const L even = pixels / groups, longer = pixels % groups;  // of pixels: a few by themselves would be slow
    const bool whole = s.left >= vectors * LANES;
    for (L g = 0, rows; g < groups; g++) {
        rows = even + (g < longer);
        whole ? product_of<vectors>(rows, s) : narrow<vectors>(rows, s);
        s.a += rows * s.lda, s.y += rows * s.ldy;
        if (s.residual) s.residual += rows * s.ldy;
    }
}

// Channels from `begin` to `end`, WIDE at a time, of `pixels` rows of `count` columns, which are those from `start` on.
void multiply(const Step *o, const float *a, L lda, L start, L count, L pixels, L begin, L end, const float *residual,
              float *y) {
    const L blocks = (count + DEPTH - 1) / DEPTH;
    Rows s;
    s.lda = lda, s.ldy = o->m, s.low = o->low, s.high = o->high;
    for (L m = begin; m < end; m += WIDE)
        for (L block = 0; block < blocks; block++) {  // the sums of so few channels wait in the first cache
            const L k = block * count / blocks;
            s.depth = (block + 1) * count / blocks - k;
            s.a = a + k, s.b = o->weight + m * o->columns + (start + k) * WIDE, s.bias = o->bias + m;
            s.y = y + m, s.residual = residual ? residual + m : nullptr;
            s.first = start + k == 0, s.last = start + k + s.depth == o->columns, s.left = o->m - m;
            s.left <= LANES ? panel<1>(pixels, s) : panel<2>(pixels, s);
        }
}
