// What each output pixel is made of: its patch of the image, or what a convolution of small groups gives there.

#pragma once

#include "vector.h"

constexpr L TAPS = 1024;  // of an output of small groups, at most

static thread_local Kept planes_here, picked_here;

struct Place {
    const float *image;
    L y, x;  // of the kernel's first tap in the image
    L out_x;
};

INLINE Place place_of(const Step *o, L pixel) {
    L in_image = pixel % (o->oh * o->ow), out_x = in_image % o->ow;
    return {
        o->x + pixel / (o->oh * o->ow) * o->h * o->w * o->c,
        in_image / o->ow * o->sh - o->ph,
        out_x * o->sw - o->pw,
        out_x,
    };
}

// Of each pixel's patch the taps from `first` to `last`. Those of a row of the kernel that fall into the image stand side
// by side there, unless it is dilated.
void patches(const Step *o, L first, L last, L from, L to, float *tile, L ld) {
    const L c = o->c;
    for (L pixel = from; pixel < to; pixel++) {
        Place at = place_of(o, pixel);
        float *columns = tile + (pixel - from) * ld;
        for (L tap = first, taps; tap < last; tap += taps, columns += taps * c) {
            const L i = tap / o->kw, j = tap % o->kw, iy = at.y + i * o->dh, ix = at.x + j * o->dw;
            taps = o->dw == 1 ? std::min(o->kw - j, last - tap) : 1;
            L begin = std::clamp(-ix, L(0), taps), end = std::clamp(o->w - ix, begin, taps);
            if (iy < 0 || iy >= o->h) begin = end = 0;
            std::fill(columns, columns + begin * c, 0.f);
            std::copy_n(at.image + (iy * o->w + ix + begin) * c, (end - begin) * c, columns + begin * c);
            std::fill(columns + end * c, columns + taps * c, 0.f);
        }
    }
}

template <bool relu>
INLINE V read(const float *from) {
    V v = load(from);
    return relu ? (v < V{} ? V{} : v) : v;
}

// What stands in a row of the output, of one term: `pixels` from a place on. Of every `planes · channels` numbers that a
// pixel of the image has, `channels` beside each other are a plane; the sum over all of them is given.
struct Part {
    const float *image;
    L y, x, pixels, channels, planes;
    const float *taps, *bias;
    float low, high;
    float *out;
    L ld;
};

// One output pixel from the taps that fall into the image, its channels from `c` on.
template <bool relu>
INLINE void one_pixel(const Part &o, const float *const *in, const float *const *taps, L count, L c, float *out) {
    for (; c + LANES <= o.channels; c += LANES) {
        V sum = load(o.bias + c);
        for (L t = 0; t < count; t++) sum += read<relu>(in[t] + c) * load(taps[t] + c);
        store(out + c, clamp(sum, o.low, o.high));
    }
    for (; c < o.channels; c++) {
        float sum = o.bias[c];
        for (L t = 0; t < count; t++) sum += (relu && in[t][c] < 0 ? 0 : in[t][c]) * taps[t][c];
        out[c] = sum < o.low ? o.low : sum > o.high ? o.high : sum;
    }
}

// Four neighbours: each value is read once for all four. `first` and `last` of the columns that they see together fall
// into the image, which are all unless they stand at its `edge`. What is left of the channels, fewer than LANES, is
// done by the caller. The next four, in the same rows, are fetched meanwhile.
template <bool relu, int kw, int sw, int count, bool edge>
void four_pixels(const Part &o, const float *const *rows, const float *const *taps, L p0, L first, L last) {
    constexpr int seen = kw + 3 * sw;
    const L pitch = o.planes * o.channels, plane = kw * kw * o.channels;
    for (L c = 0; c + LANES <= o.channels; c += LANES) {
        V sum[4] = {load(o.bias + c), load(o.bias + c), load(o.bias + c), load(o.bias + c)};
        for (L i = 0; i < o.planes; i++) {
#pragma GCC unroll 8
            for (int r = 0; r < count; r++) {
                const float *in = rows[r] + p0 * sw * pitch + i * o.channels + c, *w = taps[r] + i * plane + c;
                if (!edge && c % 16 == 0)
                    for (int p = 0; p < 4 * sw; p++) __builtin_prefetch(in + (seen + p) * pitch);
#pragma GCC unroll 16
                for (int j = 0; j < seen; j++) {
                    if (edge && (j < first || j >= last)) continue;
                    V v = read<relu>(in + j * pitch);
#pragma GCC unroll 4
                    for (int p = 0; p < 4; p++)
                        if (j - p * sw >= 0 && j - p * sw < kw) sum[p] += v * load(w + (j - p * sw) * o.channels);
                }
            }
        }
        for (int p = 0; p < 4; p++) store(o.out + (p0 + p) * o.ld + c, clamp(sum[p], o.low, o.high));
    }
}

// For as many rows as there are.
template <bool relu, int kw, int sw, bool edge, int most = kw, typename... Rest>
INLINE void four_pixels_of(L count, const Rest &...rest) {
    if (count == most)
        four_pixels<relu, kw, sw, most, edge>(rest...);
    else if constexpr (most > 1)
        four_pixels_of<relu, kw, sw, edge, most - 1>(count, rest...);
}

// Kernels that are made for four pixels: 3x3 and 5x5, at stride 1 or 2.
template <bool relu, int kw, int sw>
INLINE bool four_pixels_if(const Step *s, const Part &o, L count, const float *const *rows, const float *const *taps,
                           L p) {
    if (s->kw != kw || s->sw != sw) return false;
    const L x = o.x + p * sw, first = std::max(-x, L(0)), last = std::min(s->w - x, L(kw + 3 * sw));
    if (first == 0 && last == kw + 3 * sw)
        four_pixels_of<relu, kw, sw, false>(count, o, rows, taps, p, first, last);
    else
        four_pixels_of<relu, kw, sw, true>(count, o, rows, taps, p, first, last);
    return true;
}

template <bool relu>
INLINE bool four_pixels_any(const Step *s, const Part &o, L count, const float *const *rows, const float *const *taps,
                            L p) {
    return count &&
           (four_pixels_if<relu, 3, 1>(s, o, count, rows, taps, p) || four_pixels_if<relu, 3, 2>(s, o, count, rows, taps, p) ||
            four_pixels_if<relu, 5, 1>(s, o, count, rows, taps, p) || four_pixels_if<relu, 5, 2>(s, o, count, rows, taps, p));
}

template <bool relu>
void part_of_row(const Step *s, const Part &o) {
    const float *in[TAPS], *taps[TAPS];
    const L pitch = o.planes * o.channels;
    L quick = 0;  // pixels that have all channels but those that fill no vector
    if (o.pixels >= 4 && o.channels >= LANES && s->kh == s->kw && s->dw == 1) {
        L count = 0;
        for (L i = 0; i < s->kh; i++) {
            L iy = o.y + i * s->dh;
            if (iy < 0 || iy >= s->h) continue;
            in[count] = o.image + (iy * s->w + o.x) * pitch;
            taps[count++] = o.taps + i * s->kw * o.channels;
        }
        while (quick < o.pixels) {
            L p = std::min(quick, o.pixels - 4);  // the last four may be some of those before them
            if (!four_pixels_any<relu>(s, o, count, in, taps, p)) break;
            quick = p + 4;
        }
    }
    for (L p = 0; p < o.pixels; p++) {
        const L done = p < quick ? o.channels - o.channels % LANES : 0;
        if (done == o.channels) continue;
        L count = 0;
        for (L plane = 0; plane < o.planes; plane++)
            for (L i = 0; i < s->kh; i++)
                for (L j = 0; j < s->kw; j++) {
                    L iy = o.y + i * s->dh, ix = o.x + p * s->sw + j * s->dw;
                    if (iy < 0 || iy >= s->h || ix < 0 || ix >= s->w) continue;
                    in[count] = o.image + (iy * s->w + ix) * pitch + plane * o.channels;
                    taps[count++] = o.taps + ((plane * s->kh + i) * s->kw + j) * o.channels;
                }
        one_pixel<relu>(o, in, taps, count, done, o.out + p * o.ld);
    }
}

template <bool relu>
void depthwise(const Step *o, L from, L to, float *tile, L ld) {
    for (L pixel = from, count; pixel < to; pixel += count) {
        Place at = place_of(o, pixel);
        count = std::min(o->ow - at.out_x, to - pixel);
        for (L term = 0; term < o->terms; term++)
            part_of_row<relu>(o, {at.image, at.y, at.x, count, o->c, 1, o->taps + term * o->kh * o->kw * o->c,
                                  o->mid_bias + term * o->c, o->mid_low, o->mid_high,
                                  tile + (pixel - from) * ld + term * o->c, ld});
    }
}

// Where a vector's numbers are taken from: those that stand in one vector or two, from `base` on, are moved to their
// lanes; others are read one by one.
struct Picked {
    L base, vectors;
    Lanes lanes;
};

INLINE Picked picked(const int32_t *index, L channels) {
    auto [low, high] = std::minmax_element(index, index + LANES);
    Picked made{std::max(std::min(L(*low), channels - LANES), L(0)), 0, {}};
    const L span = *high - made.base + 1;
    if (span <= LANES && made.base + LANES <= channels)
        made.vectors = 1;
    else if (span <= 2 * LANES && channels >= 2 * LANES) {
        made.base = std::min(made.base, channels - 2 * LANES);
        made.vectors = 2;
    }
    for (L i = 0; i < LANES; i++) made.lanes[i] = index[i] - (made.vectors ? made.base : 0);
    return made;
}

INLINE V pick(const Picked &from, const float *in) {
    if (from.vectors == 1) return moved(load(in + from.base), from.lanes);
    if (from.vectors == 2) return moved(load(in + from.base), load(in + from.base + LANES), from.lanes);
    V v;
    for (L i = 0; i < LANES; i++) v[i] = in[from.lanes[i]];
    return v;
}

// A convolution of small groups is a sum of depthwise ones: plane i of it sees, for each channel that it gives, the i-th
// of the channels which that one's group reads. Those are put beside each other first, for the part of the image that
// the tile sees; `index` says where each stands.
bool grouped(const Step *o, L from, L to, float *tile, L ld) {
    const L mid = o->mid, pitch = o->planes * mid, size = o->oh * o->ow, vectors = pitch / LANES;
    Picked *from_where = reinterpret_cast<Picked *>(picked_here.of((vectors + 1) * sizeof(Picked)));
    if (!from_where) return false;
    for (L i = 0; i < vectors; i++) from_where[i] = picked(o->index + i * LANES, o->c);
    const float least = o->relu ? 0 : -__builtin_inff();
    for (L pixel = from, count; pixel < to; pixel += count) {
        count = std::min(size - pixel % size, to - pixel);  // of one image
        Place at = place_of(o, pixel), last = place_of(o, pixel + count - 1);
        const bool row = at.y == last.y;
        const L top = std::clamp(at.y, L(0), o->h), bottom = std::clamp(last.y + (o->kh - 1) * o->dh + 1, top, o->h);
        const L left = row ? std::clamp(at.x, L(0), o->w) : 0;
        const L right = row ? std::clamp(last.x + (o->kw - 1) * o->dw + 1, left, o->w) : o->w;
        float *planes = planes_here.of(4 * std::max((bottom - top) * o->w * pitch, L(1)));
        if (!planes) return false;
        for (L iy = top; iy < bottom; iy++)
            for (L ix = left; ix < right; ix++) {
                const float *in = at.image + (iy * o->w + ix) * o->c;
                float *out = planes + ((iy - top) * o->w + ix) * pitch;
                for (L i = 0; i < vectors; i++)
                    store(out + i * LANES, clamp(pick(from_where[i], in), least, __builtin_inff()));
                for (L k = vectors * LANES; k < pitch; k++) out[k] = in[o->index[k]] < least ? least : in[o->index[k]];
            }
        for (L done = 0, part; done < count; done += part) {
            Place here = place_of(o, pixel + done);
            part = std::min(o->ow - here.out_x, count - done);
            part_of_row<false>(o, {planes - top * o->w * pitch, here.y, here.x, part, mid, o->planes, o->taps,
                                   o->mid_bias, o->mid_low, o->mid_high, tile + (pixel - from + done) * ld, ld});
        }
    }
    return true;
}

// What a convolution of small groups gives, channels side by side. Whether there was memory for it.
INLINE bool small_groups(const Step *o, L from, L to, float *tile, L ld) {
    if (o->source == GROUPED) return grouped(o, from, to, tile, ld);
    o->relu ? depthwise<true>(o, from, to, tile, ld) : depthwise<false>(o, from, to, tile, ld);
    return true;
}
