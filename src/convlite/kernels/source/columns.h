// What each output pixel is made of: its patch of the image, or what a depthwise convolution gives there.

#pragma once

#include "vector.h"

constexpr L TAPS = 1024;  // of a depthwise kernel, at most

struct Place {
    const float *image;
    L y, x;  // of the kernel's first tap in the image
    L out_x;
};

INLINE Place place_of(const Step *o, const float *x, L pixel) {
    L in_image = pixel % (o->oh * o->ow), out_x = in_image % o->ow;
    return {
        x + pixel / (o->oh * o->ow) * o->h * o->w * o->c,
        in_image / o->ow * o->sh - o->ph,
        out_x * o->sw - o->pw,
        out_x,
    };
}

// The taps of a row of the kernel that fall into the image stand side by side there, unless it is dilated.
void patches(const Step *o, const float *x, L from, L to, float *tile, L ld) {
    const L c = o->c, together = o->dw == 1 ? o->kw : 1;
    for (L pixel = from; pixel < to; pixel++) {
        Place at = place_of(o, x, pixel);
        float *columns = tile + (pixel - from) * ld;
        for (L i = 0; i < o->kh; i++)
            for (L j = 0; j < o->kw; j += together, columns += together * c) {
                L iy = at.y + i * o->dh, ix = at.x + j * o->dw;
                L first = std::clamp(-ix, L(0), together), last = std::clamp(o->w - ix, first, together);
                if (iy < 0 || iy >= o->h) first = last = 0;
                std::fill(columns, columns + first * c, 0.f);
                std::copy_n(at.image + (iy * o->w + ix + first) * c, (last - first) * c, columns + first * c);
                std::fill(columns + last * c, columns + together * c, 0.f);
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
void depthwise(const Step *o, const float *x, L from, L to, float *tile, L ld) {
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

void columns(const Step *o, const float *x, L from, L to, float *tile, L ld) {
    if (o->source == PATCHES)
        patches(o, x, from, to, tile, ld);
    else if (o->relu)
        depthwise<true>(o, x, from, to, tile, ld);
    else
        depthwise<false>(o, x, from, to, tile, ld);
}
