// Vectors of as many floats as a register of this processor holds, or of fewer, and what all steps are told.

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

template <L lanes>
struct Lane {
    typedef float Of __attribute__((vector_size(4 * lanes)));
};
template <>
struct Lane<1> {
    typedef float Of;
};
typedef Lane<LANES>::Of V;
#define INLINE inline __attribute__((always_inline))
#define INLINE_LAMBDA __attribute__((always_inline))

template <typename T = V>
INLINE T load(const float *from) {
    T v;
    memcpy(&v, from, sizeof v);
    return v;
}

template <typename T>
INLINE void store(float *to, T v) {
    memcpy(to, &v, sizeof v);
}

// The first `count` numbers of a vector, for those that are left over.
INLINE V part(const float *from, L count) {
#if defined(__AVX512F__)
    return (V)_mm512_maskz_loadu_ps((__mmask16)((1u << count) - 1), from);
#elif defined(__AVX2__)
    const __m256i lanes = {0 | 1LL << 32, 2 | 3LL << 32, 4 | 5LL << 32, 6 | 7LL << 32};
    return (V)_mm256_maskload_ps(from, _mm256_cmpgt_epi32(_mm256_set1_epi32((int)count), lanes));
#else
    V v = {};
    for (L i = 0; i < count; i++) v[i] = from[i];
    return v;
#endif
}

INLINE void store_part(float *to, V v, L count) {
#if defined(__AVX512F__)
    _mm512_mask_storeu_ps(to, (__mmask16)((1u << count) - 1), (__m512)v);
#else
    for (L i = 0; i < count; i++) to[i] = v[i];
#endif
}

// NaN stays NaN.
template <typename T>
INLINE T clamp(T v, float low, float high) {
    T least = T{} + low, most = T{} + high;
    v = v < least ? least : v;
    return v > most ? most : v;
}

constexpr L FEW = 4;  // numbers of the narrowest vector

// Channels from `c` on, a vector at a time: those left over in narrower ones, and then one by one. `each(c, T)` gets where
// they begin, and one of their type.
template <L lanes = LANES, typename Each>
INLINE void each_vector(L c, L channels, Each each) {
    for (; c + lanes <= channels; c += lanes) each(c, typename Lane<lanes>::Of{});
    if constexpr (lanes > 1) each_vector<(lanes > FEW ? lanes / 2 : 1)>(c, channels, each);
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
