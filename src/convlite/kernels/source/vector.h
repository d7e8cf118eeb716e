// Vectors of as many floats as a register of this processor holds, and what all steps are told.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

using L = int64_t;
#if defined(__AVX512F__)
constexpr L LANES = 16;
#elif defined(__AVX__)
constexpr L LANES = 8;
#else
constexpr L LANES = 4;
#endif

typedef float V __attribute__((vector_size(4 * LANES)));
#define INLINE inline __attribute__((always_inline))
#define INLINE_LAMBDA __attribute__((always_inline))

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

// The numbers of one vector, or of two, in other lanes.
typedef int32_t Lanes __attribute__((vector_size(4 * LANES)));

INLINE V moved(V v, Lanes from) {
#if defined(__AVX512F__)
    return (V)_mm512_permutexvar_ps((__m512i)from, (__m512)v);
#elif defined(__AVX2__)
    return (V)_mm256_permutevar8x32_ps((__m256)v, (__m256i)from);
#else
    V to;
    for (L i = 0; i < LANES; i++) to[i] = v[from[i]];
    return to;
#endif
}

INLINE V moved(V one, V two, Lanes from) {
    V low = moved(one, from & (int32_t)(LANES - 1)), high = moved(two, from & (int32_t)(LANES - 1));
    return from < (int32_t)LANES ? low : high;
}

enum { IMAGE, PATCHES, DEPTHWISE, GROUPED, LARGEST, MEAN };

// One operation on images (n, h, w, c). Written by step.py: the same fields in the same order.
struct Step {
    int64_t n, h, w, c;                        // the input
    int64_t oh, ow, m;                         // the output
    int64_t kh, kw, sh, sw, ph, pw, dh, dw;    // kernel, stride, padding, dilation
    int64_t columns;                           // a pixel: c, kh·kw·c or terms·c
    int64_t source, relu, terms, threads;      // relu: of what a depthwise convolution reads
    int64_t mid, planes;                       // a grouped one: channels it gives, and inputs of each
    float mid_low, mid_high, low, high;        // what depthwise and dense outputs are clamped to
    const float *taps, *mid_bias;              // (terms, kh, kw, c) and (terms·c); (planes, kh, kw, mid) and (mid)
    const int32_t *index;                      // (planes, mid)
    const float *weight, *bias;                // (m / WIDE, columns, WIDE) and (m), m rounded up to WIDE; or null
    const float *x, *residual;                 // (n, h, w, c), and null or like y
    float *y;                                  // (n, oh, ow, m)
};

// A thread's own memory, kept: pages fresh from the system are cleared first.
struct Kept {
    float *data = nullptr;
    size_t bytes = 0;

    float *of(size_t wanted) {  // null where there is no more
        wanted = (wanted + 63) / 64 * 64;
        if (wanted > bytes) {
            std::free(data);
            data = static_cast<float *>(std::aligned_alloc(64, wanted));
            bytes = data ? wanted : 0;
        }
        return data;
    }
    ~Kept() { std::free(data); }
};
