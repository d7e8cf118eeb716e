// The product of what output pixels are made of, row by row, with the dense weights. It keeps ROWS pixels of WIDE
// channels in registers (Goto & van de Geijn 2008, "Anatomy of High-Performance Matrix Multiplication").

#pragma once

#include "vector.h"

constexpr L ROWS = LANES == 16 ? 12 : 6;
constexpr L WIDE = 2 * LANES;
constexpr L DEPTH = 768;  // columns multiplied before the next: sums that wait stand in memory

// y (rows, WIDE) = clamp(bias + a · b + residual), of at most DEPTH columns at a time: what y holds so far is added to.
struct Rows {
    const float *a, *b, *bias, *residual;
    float *y;
    L lda, ldy, depth, left;  // left: channels of y, where it is less than WIDE
    bool first, last;
    float low, high;
};

template <int rows, bool full>
void product(const Rows &s) {
    const L counts[2] = {s.left < LANES ? s.left : LANES, s.left < LANES ? 0 : s.left - LANES};
    V sum[rows][2];
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < 2; j++) {
            sum[i][j] = s.first ? load(s.bias + j * LANES) : V{};
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
    auto each = [&](auto what) INLINE_LAMBDA {
#pragma GCC unroll 16
        for (int i = 0; i < rows; i++)
            for (int j = 0; j < 2; j++) what(sum[i][j], i * s.ldy + j * LANES, counts[j]);
    };
    auto add = [&](const float *from) INLINE_LAMBDA {
        each([&](V &v, L at, L count) INLINE_LAMBDA { v += full ? load(from + at) : part(from + at, count); });
    };
    if (!s.first) add(s.y);
    if (s.last && s.residual) add(s.residual);
    if (s.last) each([&](V &v, L, L) INLINE_LAMBDA { v = clamp(v, s.low, s.high); });
    each([&](V &v, L at, L count) INLINE_LAMBDA {
        if (full)
            store(s.y + at, v);
        else
            memcpy(s.y + at, &v, 4 * (size_t)count);
    });
}

template <int rows = ROWS>
void products(L count, const Rows &s) {
    if (count == rows)
        s.left >= WIDE ? product<rows, true>(s) : product<rows, false>(s);
    else if constexpr (rows > 1)
        products<rows - 1>(count, s);
}

// Channels from `begin` to `end`, WIDE at a time, of `pixels` rows of `count` columns, which are those from `start` on.
void multiply(const Step *o, const float *a, L lda, L start, L count, L pixels, L begin, L end, const float *residual,
              float *y) {
    const L groups = (pixels + ROWS - 1) / ROWS, blocks = (count + DEPTH - 1) / DEPTH;
    const L even = pixels / groups, longer = pixels % groups;  // of rows: a few by themselves would be slow
    Rows s;
    s.lda = lda, s.ldy = o->m, s.low = o->low, s.high = o->high;
    for (L m = begin; m < end; m += WIDE)
        for (L block = 0; block < blocks; block++) {  // the sums of so few channels wait in the first cache
            const L k = block * count / blocks;
            s.depth = (block + 1) * count / blocks - k;
            s.a = a + k, s.b = o->weight + m * o->columns + (start + k) * WIDE, s.bias = o->bias + m;
            s.y = y + m, s.residual = residual ? residual + m : nullptr;
            s.first = start + k == 0, s.last = start + k + s.depth == o->columns, s.left = o->m - m;
            L g = 0;
            auto next = [&](L rows) {
                s.a += rows * s.lda, s.y += rows * s.ldy;
                if (residual) s.residual += rows * s.ldy;
                g++;
            };
            if (longer == 0 && even == ROWS && s.left >= WIDE)
                for (; g < groups; next(ROWS)) product<ROWS, true>(s);
            for (L rows; g < groups; next(rows)) products(rows = even + (g < longer), s);
        }
}
