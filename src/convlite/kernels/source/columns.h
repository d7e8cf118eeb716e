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

// Four neighbours in a row of the output: each value is read once for all four. `first` and `last` of the columns that
// they see together fall into the image, which are all unless they stand at its `edge`. What is left of the channels,
// fewer than LANES, is done by the caller. The next four, in the same rows, are fetched meanwhile.
template <bool relu, int kw, int sw, int count, bool edge>
void four_pixels(const float *const *rows, const float *const *taps, const float *bias, L channels, L first, L last,
                 float low, float high, float *out, L ld) {
    constexpr int seen = kw + 3 * sw;
    for (L c = 0; c + LANES <= channels; c += LANES) {
        V sum[4] = {load(bias + c), load(bias + c), load(bias + c), load(bias + c)};
#pragma GCC unroll 8
        for (int r = 0; r < count; r++) {
            const float *in = rows[r] + c, *w = taps[r] + c;
            if (!edge && c % 16 == 0)
                for (int p = 0; p < 4 * sw; p++) __builtin_prefetch(in + (seen + p) * channels);
#pragma GCC unroll 16
            for (int j = 0; j < seen; j++) {
                if (edge && (j < first || j >= last)) continue;
                V v = read<relu>(in + j * channels);
#pragma GCC unroll 4
                for (int p = 0; p < 4; p++)
                    if (j - p * sw >= 0 && j - p * sw < kw) sum[p] += v * load(w + (j - p * sw) * channels);
            }
        }
        for (int p = 0; p < 4; p++) store(out + p * ld + c, clamp(sum[p], low, high));
    }
}

// For as many rows as there are.
template <bool relu, int kw, int sw, bool edge, int most = kw, typename... Rest>
INLINE void four_pixels_of(L count, Rest... rest) {
    if (count == most)
        four_pixels<relu, kw, sw, most, edge>(rest...);
    else if constexpr (most > 1)
        four_pixels_of<relu, kw, sw, edge, most - 1>(count, rest...);
}

// Kernels that are made for four pixels: 3x3 and 5x5, at stride 1 or 2.
template <bool relu, int kw, int sw>
INLINE bool four_pixels_if(const Step *o, L count, const float *const *rows, const float *const *taps,
                           const float *bias, L x, float *out, L ld) {
    if (o->kw != kw || o->sw != sw) return false;
    const L first = std::max(-x, L(0)), last = std::min(o->w - x, L(kw + 3 * sw));
    if (first == 0 && last == kw + 3 * sw)
        four_pixels_of<relu, kw, sw, false>(count, rows, taps, bias, o->c, first, last, o->mid_low, o->mid_high, out, ld);
    else
        four_pixels_of<relu, kw, sw, true>(count, rows, taps, bias, o->c, first, last, o->mid_low, o->mid_high, out, ld);
    return true;
}

template <bool relu>
INLINE bool four_pixels_any(const Step *o, L count, const float *const *rows, const float *const *taps,
                            const float *bias, L x, float *out, L ld) {
    return count && (four_pixels_if<relu, 3, 1>(o, count, rows, taps, bias, x, out, ld) ||
                     four_pixels_if<relu, 3, 2>(o, count, rows, taps, bias, x, out, ld) ||
                     four_pixels_if<relu, 5, 1>(o, count, rows, taps, bias, x, out, ld) ||
                     four_pixels_if<relu, 5, 2>(o, count, rows, taps, bias, x, out, ld));
}

// A part of a row of the output, and one term: `pixels` of them from a place on.
template <bool relu>
void depthwise_row(const Step *o, Place at, L pixels, const float *kernel, const float *bias, float *out, L ld) {
    const float *in[TAPS], *taps[TAPS];
    const L c = o->c;
    L done = 0;  // channels that all of these pixels have already
    if (pixels >= 4 && c >= LANES && o->kh == o->kw && o->dw == 1) {
        L count = 0;
        for (L i = 0; i < o->kh; i++) {
            L iy = at.y + i * o->dh;
            if (iy < 0 || iy >= o->h) continue;
            in[count] = at.image + (iy * o->w + at.x) * c;
            taps[count++] = kernel + i * o->kw * c;
        }
        for (L p = 0, moved = 0; four_pixels_any<relu>(o, count, in, taps, bias, at.x + p * o->sw, out + p * ld, ld);) {
            if (p + 4 == pixels) {
                done = c - c % LANES;
                break;
            }
            moved = std::min(L(4), pixels - 4 - p);  // the last four may have some of those before them
            for (L r = 0; r < count; r++) in[r] += moved * o->sw * c;
            p += moved;
        }
    }
    for (L p = 0; p < pixels && done < c; p++) {
        L count = 0;
        for (L i = 0; i < o->kh; i++)
            for (L j = 0; j < o->kw; j++) {
                L iy = at.y + i * o->dh, ix = at.x + p * o->sw + j * o->dw;
                if (iy < 0 || iy >= o->h || ix < 0 || ix >= o->w) continue;
                in[count] = at.image + (iy * o->w + ix) * c + done;
                taps[count++] = kernel + (i * o->kw + j) * c + done;
            }
        one_pixel<relu>(in, taps, count, bias + done, c - done, o->mid_low, o->mid_high, out + p * ld + done);
    }
}

template <bool relu>
void depthwise(const Step *o, const float *x, L from, L to, float *tile, L ld) {
    for (L pixel = from, count; pixel < to; pixel += count) {
        Place at = place_of(o, x, pixel);
        count = std::min(o->ow - at.out_x, to - pixel);
        for (L term = 0; term < o->terms; term++)
            depthwise_row<relu>(o, at, count, o->taps + term * o->kh * o->kw * o->c, o->mid_bias + term * o->c,
                                tile + (pixel - from) * ld + term * o->c, ld);
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
