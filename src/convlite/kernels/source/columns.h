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

// A row of the output of a convolution of small groups, or a part of one: `pixels` from a place on. Of every
// `planes · channels` numbers that a pixel of the image has, `channels` beside each other are a plane; each output channel
// is a sum over all of them.
struct Row {
    const float *image;
    L y, x, pixels, channels, planes;
};

// What stands there, of one term.
struct Part : Row {
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

// A row of kernels of `kw` taps, not dilated, from the rows of the image that they see: each of its columns is read once
// and added to the pixels that see it, some vectors of channels at a time. A block of columns, of which a new pixel begins
// with each, ends the oldest of the `live` pixels that are under way. `high`: how many rows, where that is known.
constexpr L AHEAD = 4 * LANES;  // channels that are fetched before they are needed

template <bool relu, int kw, int sw, int vectors, int high, bool many>
void slide(const Step *s, const Part &o, L rows, const float *const *in, const float *const *taps, L c) {
    constexpr int live = (kw - 1) / sw + 1;
    const L planes = many ? o.planes : 1, pitch = planes * o.channels, next = o.channels, plane = s->kh * kw * next;
    const L first = -o.x, end = s->w - o.x;  // of the columns that fall into the image
    const bool here = c + AHEAD < o.channels;  // else in the next row
    const L soon = here ? AHEAD : sw * s->w * pitch + AHEAD - next, soon_out = here ? AHEAD : o.pixels * o.ld + AHEAD - next;
    const float low = o.low, most = o.high;
    const L ld = o.ld;
    float *out = o.out + c - (live - 1) * ld;
    V bias[vectors], sum[live][vectors];
    for (int v = 0; v < vectors; v++) {
        bias[v] = load(o.bias + c + v * LANES);
        for (int i = 0; i < live; i++) sum[i][v] = bias[v];
    }
    // Rows and taps of one plane where the compiler addresses them best; of `many` planes, or rows, they stay in memory.
    constexpr int top = high ? high : kw;
    const float *x[top], *ahead = in[rows - 1] + c + soon;
    V near[top][kw][vectors];
    for (L r = 0; r < (high ? high : rows) && !many; r++) {
        x[r] = in[r] + c;
        for (int j = 0; j < kw; j++)
            for (int v = 0; v < vectors; v++) near[r][j][v] = load(taps[r] + j * next + c + v * LANES);
    }
    auto block = [&](L p, auto edge) INLINE_LAMBDA {
#pragma GCC unroll 2
        for (int e = 0; e < sw; e++) {
            const L q = p * sw + e;
            if (edge.value && (q < first || q >= end)) continue;
            __builtin_prefetch(ahead + q * pitch);
            auto see = [&](V seen, int v, auto tap) INLINE_LAMBDA {
#pragma GCC unroll 8
                for (int i = 0; i < live; i++)  // the newest pixel last
                    if (e + (live - 1 - i) * sw < kw) sum[i][v] += seen * tap(e + (live - 1 - i) * sw);
            };
            auto row = [&](L r) INLINE_LAMBDA {
                for (L k = 0; many && k < planes; k++)
                    for (int v = 0; v < vectors; v++) {
                        const float *t = taps[r] + k * plane + c + v * LANES;
                        see(read<relu>(in[r] + q * pitch + k * next + c + v * LANES), v,
                            [&](int j) INLINE_LAMBDA { return load(t + j * next); });
                    }
                for (int v = 0; !many && v < vectors; v++)
                    see(read<relu>(x[r] + q * pitch + v * LANES), v, [&](int j) INLINE_LAMBDA { return near[r][j][v]; });
            };
            if constexpr (high) {
#pragma GCC unroll 4
                for (int r = 0; r < high; r++) row(r);
            } else {
                for (L r = 0; r < rows; r++) row(r);
            }
        }
        if (p >= live - 1) {
            __builtin_prefetch(out + p * ld + soon_out, 1);
            for (int v = 0; v < vectors; v++) store(out + p * ld + v * LANES, clamp(sum[0][v], low, most));
        }
#pragma GCC unroll 8
        for (int i = 0; i < live; i++)
            for (int v = 0; v < vectors; v++) sum[i][v] = i + 1 < live ? sum[i + 1][v] : bias[v];
    };
    const L blocks = o.pixels + live - 1;
    const L inside = std::min((std::max(first, L(0)) + sw - 1) / sw, blocks), outside = std::clamp(end / sw, inside, blocks);
    for (L p = 0; p < inside; p++) block(p, std::true_type());
    for (L p = inside; p < outside; p++) block(p, std::false_type());
    for (L p = outside; p < blocks; p++) block(p, std::true_type());
}

template <bool relu, int kw, int sw>
INLINE bool slide_if(const Step *s, const Part &o, L rows, const float *const *in, const float *const *taps) {
    if (s->kw != kw || s->sw != sw) return false;
    auto run = [&](auto two, auto one) {
        L c = 0;
        for (; c + 2 * LANES <= o.channels; c += 2 * LANES) two(s, o, rows, in, taps, c);
        if (c + LANES <= o.channels) one(s, o, rows, in, taps, c);
    };
    if (o.planes > 1 || rows > kw)
        run(slide<relu, kw, sw, 2, 0, true>, slide<relu, kw, sw, 1, 0, true>);
    else if (kw == 3 && rows == 3)
        run(slide<relu, kw, sw, 2, 3, false>, slide<relu, kw, sw, 1, 3, false>);
    else
        run(slide<relu, kw, sw, 2, 0, false>, slide<relu, kw, sw, 1, 0, false>);
    return true;
}

template <bool relu>
void part_of_row(const Step *s, const Part &o) {
    const float *in[TAPS], *taps[TAPS];
    const L pitch = o.planes * o.channels;
    L done = 0;  // channels
    if (o.channels >= LANES && s->dw == 1) {
        L rows = 0;
        for (L i = 0; i < s->kh; i++) {
            L iy = o.y + i * s->dh;
            if (iy < 0 || iy >= s->h) continue;
            in[rows] = o.image + (iy * s->w + o.x) * pitch;
            taps[rows++] = o.taps + i * s->kw * o.channels;
        }
        if (rows && (slide_if<relu, 3, 1>(s, o, rows, in, taps) || slide_if<relu, 3, 2>(s, o, rows, in, taps) ||
                     slide_if<relu, 5, 1>(s, o, rows, in, taps) || slide_if<relu, 5, 2>(s, o, rows, in, taps) ||
                     slide_if<relu, 7, 1>(s, o, rows, in, taps)))
            done = o.channels - o.channels % LANES;
    }
    for (L p = 0; p < o.pixels && done < o.channels; p++) {
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

// Each row, or part of one, of the output's pixels from one to another: `each(row, pixel)`. A convolution of small groups is
// a sum of depthwise ones: plane i of it sees, for each channel that it gives, the i-th of the channels which that one's
// group reads. Those are put beside each other first, for the part of the image that the pixels see; `index` says where
// each stands. Whether there was memory for them.
template <typename Each>
INLINE bool each_row(const Step *o, L from, L to, Each each) {
    if (o->source == DEPTHWISE) {
        for (L pixel = from, count; pixel < to; pixel += count) {
            Place at = place_of(o, pixel);
            count = std::min(o->ow - at.out_x, to - pixel);
            each(Row{at.image, at.y, at.x, count, o->c, 1}, pixel);
        }
        return true;
    }
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
            each(Row{planes - top * o->w * pitch, here.y, here.x, part, mid, o->planes}, pixel + done);
        }
    }
    return true;
}

// What a convolution of small groups gives, channels side by side. Whether there was memory for it.
INLINE bool small_groups(const Step *o, L from, L to, float *tile, L ld) {
    const bool relu = o->relu && o->source == DEPTHWISE;  // else it is in the planes
    const L terms = o->source == DEPTHWISE ? o->terms : 1, taps = o->kh * o->kw;
    return each_row(o, from, to, [&](const Row &row, L pixel) {
        for (L term = 0; term < terms; term++) {
            const L first = term * row.channels;
            Part part{row, o->taps + first * taps, o->mid_bias + first, o->mid_low, o->mid_high,
                      tile + (pixel - from) * ld + first, ld};
            relu ? part_of_row<true>(o, part) : part_of_row<false>(o, part);
        }
    });
}
