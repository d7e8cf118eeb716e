// The largest or the mean of each window.

#pragma once

#include "columns.h"

// The largest of a window, NaN if there is one; or what it adds up to, over `terms`, or over its taps in the image.
template <bool largest, typename T>
INLINE T pooled(const Step *o, const float *corner, L rows, L row, L taps, float none, float over) {
    T found = T{} + none;
    for (L i = 0; i < rows; i++)
        for (L j = 0; j < taps; j++) {
            T v = load<T>(corner + i * row + j * o->dw * o->c);
            if constexpr (largest)
                found = ((v > found) | (v != v)) ? v : found;
            else
                found += v;
        }
    return largest ? found : found * over;
}

template <bool largest>
void pool(const Step *o, L from, L to) {
    const float none = largest ? -__builtin_inff() : 0;
    for (L pixel = from; pixel < to; pixel++) {
        Place at = place_of(o, pixel);
        // The taps that fall into the image, the first of them and how many.
        auto inside = [](L start, L step, L count, L size, L &first, L &number) {
            first = start < 0 ? (step - 1 - start) / step : 0;
            L end = start >= size ? 0 : (size - start + step - 1) / step;
            number = std::max(std::min(end, count) - first, L(0));
        };
        L i, rows, j, taps;
        inside(at.y, o->dh, o->kh, o->h, i, rows);
        inside(at.x, o->dw, o->kw, o->w, j, taps);
        const L row = o->dh * o->w * o->c;
        const float over = 1.f / (o->terms ? o->terms : rows * taps);
        const float *corner = at.image + ((at.y + i * o->dh) * o->w + at.x + j * o->dw) * o->c;
        float *y = o->y + pixel * o->c;
        each_vector(0, o->c, [&](L c, auto like) INLINE_LAMBDA {
            store(y + c, pooled<largest, decltype(like)>(o, corner + c, rows, row, taps, none, over));
        });
    }
}
