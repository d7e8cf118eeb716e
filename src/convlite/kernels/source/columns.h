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

// `count` numbers, a vector at a time, of which the last overlaps; for so few, a call to copy them would take longer.
template <L lanes = LANES>
INLINE void copy(float *to, const float *from, L count) {
    using T = typename Lane<lanes>::Of;
    if (count >= lanes) {
        for (L i = 0; i + lanes < count; i += lanes) store(to + i, load<T>(from + i));
        store(to + count - lanes, load<T>(from + count - lanes));
    } else if constexpr (lanes > 1) {
        copy<lanes / 2>(to, from, count);
    }
}

// Of each pixel's patch the taps from `first` to `last`. Those of a row of the kernel that fall into the image stand side
// by side there, unless it is dilated.
void patches(const Step *o, L first, L last, L from, L to, float *tile, L ld) {
    const L c = o->c;
    for (L pixel = from, count; pixel < to; pixel += count) {
        Place at = place_of(o, pixel);
        count = std::min(o->ow - at.out_x, to - pixel);
        for (L tap = first, taps; tap < last; tap += taps) {
            const L i = tap / o->kw, j = tap % o->kw, iy = at.y + i * o->dh;
            taps = o->dw == 1 ? std::min(o->kw - j, last - tap) : 1;
            const L width = iy < 0 || iy >= o->h ? 0 : o->w;
            const float *row = at.image + iy * o->w * c;
            float *columns = tile + (pixel - from) * ld + (tap - first) * c;
            for (L p = 0, ix = at.x + j * o->dw; p < count; p++, ix += o->sw, columns += ld) {
                if (ix >= 0 && ix + taps <= width) {
                    copy(columns, row + ix * c, taps * c);
                    continue;
                }
                const L begin = std::clamp(-ix, L(0), taps), end = std::clamp(width - ix, begin, taps);
                std::fill(columns, columns + begin * c, 0.f);
                std::copy_n(row + (ix + begin) * c, (end - begin) * c, columns + begin * c);
                std::fill(columns + end * c, columns + taps * c, 0.f);
            }
        }
    }
}

template <typename T, bool relu>
INLINE T read(const float *from) {
    T v = load<T>(from);
    return relu ? (v < T{} ? T{} : v) : v;
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

// One output pixel from the taps that fall into the image.
template <bool relu>
INLINE void one_pixel(const Part &o, const float *const *in, const float *const *taps, L count, float *out) {
    each_vector(0, o.channels, [&](L c, auto like) INLINE_LAMBDA {
        using T = decltype(like);
        T sum = load<T>(o.bias + c);
        for (L t = 0; t < count; t++) sum += read<T, relu>(in[t] + c) * load<T>(taps[t] + c);
        store(out + c, clamp(sum, o.low, o.high));
    });
}

// A row of kernels of `kw` taps, not dilated, from the rows of the image that they see: each of its columns is read once
// and added to the pixels that see it, some vectors of channels at a time. A block of columns, of which a new pixel begins
// with each, ends the oldest of the `live` pixels that are under way. `high`: how many rows, where that is known.
constexpr L AHEAD = 4 * LANES;  // channels that are fetched before they are needed

template <typename T, bool relu, int kw, int sw, int vectors, int high, bool many>
void slide(const Step *s, const Part &o, L rows, const float *const *in, const float *const *taps, L c) {
    constexpr int live = (kw - 1) / sw + 1;
    const L planes = many ? o.planes : 1, pitch = planes * o.channels, next = o.channels, plane = s->kh * kw * next;
    const L first = -o.x, end = s->w - o.x;  // of the columns that fall into the image
    const bool here = c + AHEAD < o.channels;  // else in the next row
    const L soon = here ? AHEAD : sw * s->w * pitch + AHEAD - next, soon_out = here ? AHEAD : o.pixels * o.ld + AHEAD - next;
    const float low = o.low, most = o.high;
    const L ld = o.ld;
    float *out = o.out + c - (live - 1) * ld;
    constexpr L lanes = sizeof(T) / 4;
    T bias[vectors], sum[live][vectors];
    for (int v = 0; v < vectors; v++) {
        bias[v] = load<T>(o.bias + c + v * lanes);
        for (int i = 0; i < live; i++) sum[i][v] = bias[v];
    }
    // Rows and taps of one plane where the compiler addresses them best; of `many` planes, or rows, they stay in memory.
    constexpr int top = high ? high : kw;
    const float *x[top], *ahead = in[rows - 1] + c + soon;
    T near[top][kw][vectors];
    for (L r = 0; r < (high ? high : rows) && !many; r++) {
        x[r] = in[r] + c;
        for (int j = 0; j < kw; j++)
            for (int v = 0; v < vectors; v++) near[r][j][v] = load<T>(taps[r] + j * next + c + v * lanes);
    }
    auto block = [&](L p, auto edge) INLINE_LAMBDA {
#pragma GCC unroll 2
        for (int e = 0; e < sw; e++) {
            const L q = p * sw + e;
            if (edge.value && (q < first || q >= end)) continue;
            __builtin_prefetch(ahead + q * pitch);
            auto see = [&](T seen, int v, auto tap) INLINE_LAMBDA {
#pragma GCC unroll 8
                for (int i = 0; i < live; i++)  // the newest pixel last
                    if (e + (live - 1 - i) * sw < kw) sum[i][v] += seen * tap(e + (live - 1 - i) * sw);
            };
            auto row = [&](L r) INLINE_LAMBDA {
                for (L k = 0; many && k < planes; k++)
                    for (int v = 0; v < vectors; v++) {
                        const float *t = taps[r] + k * plane + c + v * lanes;
                        see(read<T, relu>(in[r] + q * pitch + k * next + c + v * lanes), v,
                            [&](int j) INLINE_LAMBDA { return load<T>(t + j * next); });
                    }
                for (int v = 0; !many && v < vectors; v++)
                    see(read<T, relu>(x[r] + q * pitch + v * lanes), v, [&](int j) INLINE_LAMBDA { return near[r][j][v]; });
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
            for (int v = 0; v < vectors; v++) store(out + p * ld + v * lanes, clamp(sum[0][v], low, most));
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
    auto some = [&](L c, auto like, auto vectors) {
        using T = decltype(like);
        constexpr int three = kw == 3 ? 3 : 0;
        constexpr bool few = sizeof(T) < 32;  // channels, of which there are seldom any: less to compile
        if (o.planes > 1 || rows > kw || (few && rows != three))
            slide<T, relu, kw, sw, vectors, 0, true>(s, o, rows, in, taps, c);
        else if (rows == three)
            slide<T, relu, kw, sw, vectors, three, three == 0>(s, o, rows, in, taps, c);
        else if constexpr (!few)
            slide<T, relu, kw, sw, vectors, 0, false>(s, o, rows, in, taps, c);
    };
    std::integral_constant<int, 1> one;
    std::integral_constant<int, 2> two;
    L c = 0;
    for (; c + 2 * LANES <= o.channels; c += 2 * LANES) some(c, V{}, two);
    each_vector(c, o.channels / FEW * FEW, [&](L c, auto like) {
        if constexpr (sizeof like > 4) some(c, like, one);
    });
    if (o.channels % FEW) some(o.channels - FEW, Lane<FEW>::Of{}, one);  // some of them a second time
    return true;
}

template <bool relu>
void part_of_row(const Step *s, const Part &o) {
    const float *in[TAPS], *taps[TAPS];
    const L pitch = o.planes * o.channels;
    if (o.channels >= FEW && s->dw == 1) {
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
            return;
    }
    for (L p = 0; p < o.pixels; p++) {
        L count = 0;
        for (L plane = 0; plane < o.planes; plane++)
            for (L i = 0; i < s->kh; i++)
                for (L j = 0; j < s->kw; j++) {
                    L iy = o.y + i * s->dh, ix = o.x + p * s->sw + j * s->dw;
                    if (iy < 0 || iy >= s->h || ix < 0 || ix >= s->w) continue;
                    in[count] = o.image + (iy * s->w + ix) * pitch + plane * o.channels;
                    taps[count++] = o.taps + ((plane * s->kh + i) * s->kw + j) * o.channels;
                }
        one_pixel<relu>(o, in, taps, count, o.out + p * o.ld);
    }
}

// Where a vector's numbers are taken from: those that stand in one vector or two are moved to their lanes; others are
// read one by one.
struct Picked {
    L first, second, vectors;  // where the vectors begin; and how many there are
    Lanes lanes;
};

INLINE Picked picked(const int32_t *index, L channels) {
    auto [low, high] = std::minmax_element(index, index + LANES);
    const L end = std::max(channels - LANES, L(0)), first = std::min(L(*low), end), second = std::min(first + LANES, end);
    Picked made{first, second, *high < first + LANES ? 1 : *high < second + LANES ? 2 : 0, {}};
    for (L i = 0; i < LANES; i++) {
        const bool near = index[i] < first + LANES;
        made.lanes[i] = index[i] - (made.vectors == 0 ? 0 : near ? first : second - LANES);
    }
    return made;
}

INLINE V pick(const Picked &from, const float *in, L channels) {
    auto vector = [&](L at) { return channels < LANES ? part(in + at, channels) : load(in + at); };
    if (from.vectors == 1) return moved(vector(from.first), from.lanes);
    if (from.vectors == 2) return moved(vector(from.first), vector(from.second), from.lanes);
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
                    store(out + i * LANES, clamp(pick(from_where[i], in, o->c), least, __builtin_inff()));
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
