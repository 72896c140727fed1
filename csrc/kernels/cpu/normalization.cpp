// Batch normalization on the CPU, compiled once per instruction set (FASTCTC_ISA). The channels of a pixel are side by
// side, so a register holds some channels of one pixel.
#include "../normalization.h"

#include <algorithm>

#include "lanes.h"

namespace fastctc {
namespace cpu {
namespace FASTCTC_ISA {
namespace {

using L = Lanes<float>;
using F = L::F;
static_assert(kNormalizedTogether % L::N == 0, "a register has channels of one pixel");

// Two rows of sums over many pixels of the channels that some registers hold.
template <int registers>
struct Sums {
  F first[registers] = {}, second[registers] = {};

  void add_to(double* sums, int64_t channels) const {
    for (int r = 0; r < registers; ++r) {
      add(first[r], sums + r * L::N);
      add(second[r], sums + channels + r * L::N);
    }
  }

 private:
  static void add(F x, double* sums) {
    L::Wide sum;
    memcpy(&sum, sums, sizeof sum);
    sum += L::widen(x);
    memcpy(sums, &sum, sizeof sum);
  }
};

// f(constant, c) for the registers of all channels, by as many at once as the constant says.
template <class Function>
void for_channels(int64_t channels, const Function& f) {
  constexpr int kMost = 4;
  int64_t c = 0;
  for (; c + kMost * L::N <= channels; c += kMost * L::N) f(std::integral_constant<int, kMost>(), c);
  for (; c < channels; c += L::N) f(std::integral_constant<int, 1>(), c);
}

// The windows of pooling in an image, kRows x kColumns pixels of the input for one of the output.
template <int kRows, int kColumns>
class Windows {
 public:
  static constexpr int kPixels = kRows * kColumns;

  Windows(const NormalizationParams& p, int64_t image)
      : p_(p), width_(p.widths[image]), image_(image), out_rows_(p.rows / kRows), out_columns_(p.columns / kColumns) {}

  int64_t rows() const { return out_rows_; }
  // Windows of a row with a pixel that is not padding.
  int64_t count() const { return (width_ + kColumns - 1) / kColumns; }
  // f(window, columns) for them. The columns that are not padding are a constant.
  template <class Function>
  void each(const Function& f) const {
    int64_t window = 0;
    for (; (window + 1) * kColumns <= width_; ++window) f(window, std::integral_constant<int, kColumns>());
    if (window < count()) f(window, std::integral_constant<int, 1>());
  }
  // The first value of a window, and of the pixel that it becomes.
  int64_t input(int64_t row, int64_t window) const {
    return ((image_ * p_.rows + row * kRows) * p_.columns + window * kColumns) * p_.channels;
  }
  int64_t output(int64_t row, int64_t window) const {
    return ((image_ * out_rows_ + row) * out_columns_ + window) * p_.channels;
  }
  // Where pixel k of a window is. A pixel of the padding is replaced by the one on its left, which changes no maximum.
  int64_t pixel(int k, int columns) const {
    return (k / kColumns * p_.columns + std::min(k % kColumns, columns - 1)) * p_.channels;
  }

  // What some channels of a pixel become.
  struct Place {
    F mean, scale, shift;
  };
  Place place(int64_t c) const { return {L::load(p_.mean + c), L::load(p_.scale + c), L::load(p_.shift + c)}; }

  // The largest pixel of a window: its difference from the mean, and the masks of where it is each one of them.
  struct Largest {
    F value, difference;
    L::M is[kPixels];
  };
  FASTCTC_LANE Largest largest(const F (&differences)[kPixels], const Place& place) {
    Largest found;
    found.value = place.scale * differences[0] + place.shift;
    found.difference = differences[0];
    found.is[0] = L::first(L::N);
    for (int k = 1; k < kPixels; ++k) {
      const F value = place.scale * differences[k] + place.shift;
      const L::M larger = L::less(found.value, value);
      found.value = L::select(larger, value, found.value);
      found.difference = L::select(larger, differences[k], found.difference);
      found.is[k] = larger;
      for (int before = 0; before < k; ++before) {
        found.is[before] = L::both(found.is[before], L::invert(larger));
      }
    }
    return found;
  }

 private:
  const NormalizationParams& p_;
  int64_t width_, image_, out_rows_, out_columns_;
};

template <class Function>
void with_windows(const NormalizationParams& p, int64_t image, const Function& f) {
  if (p.pool_columns == 2) return f(Windows<2, 2>(p, image));
  if (p.pool_rows == 2) return f(Windows<2, 1>(p, image));
  f(Windows<1, 1>(p, image));
}

}  // namespace

void normalization_sums(const NormalizationParams& p, int64_t image, double* sums) {
  std::fill_n(sums, 2 * p.channels, 0.0);
  const Windows<1, 1> windows(p, image);
  for (int64_t row = 0; row < p.rows; ++row) {
    const float* const x = p.input + windows.input(row, 0);
    for_channels(p.channels, [&](auto registers, int64_t c) {
      Sums<registers> all;
      F mean[registers];
      for (int r = 0; r < registers; ++r) mean[r] = L::load(p.mean + c + r * L::N);
      for (int64_t i = 0; i < windows.count(); ++i) {
        for (int r = 0; r < registers; ++r) {
          const F difference = L::load(x + i * p.channels + c + r * L::N) - mean[r];
          all.first[r] += difference;
          all.second[r] = difference * difference + all.second[r];
        }
      }
      all.add_to(sums + c, p.channels);
    });
  }
}

void normalization(const NormalizationParams& p, int64_t image, const float* added, float* output) {
  with_windows(p, image, [&](const auto& windows) {
    constexpr int kPixels = std::decay_t<decltype(windows)>::kPixels;
    for (int64_t row = 0; row < windows.rows(); ++row) {
      windows.each([&](int64_t i, auto columns) {
        const float* const x = p.input + windows.input(row, i);
        const int64_t to = windows.output(row, i);
        for (int64_t c = 0; c < p.channels; c += L::N) {
          const auto place = windows.place(c);
          F y = L::set(0);
          for (int k = 0; k < kPixels; ++k) {
            y = L::max(y, place.scale * (L::load(x + windows.pixel(k, columns) + c) - place.mean) + place.shift);
          }
          if (added != nullptr) y += L::load(added + to + c);
          L::store(output + to + c, y);
        }
      });
      const int64_t padding = windows.output(row, windows.count()), end = windows.output(row + 1, 0);
      if (added != nullptr) {
        std::copy(added + padding, added + end, output + padding);
      } else {
        std::fill(output + padding, output + end, 0.0f);
      }
    }
  });
}

void normalization_grad_sums(const NormalizationParams& p, int64_t image, const float* grad, double* sums) {
  std::fill_n(sums, 2 * p.channels, 0.0);
  with_windows(p, image, [&](const auto& windows) {
    constexpr int kPixels = std::decay_t<decltype(windows)>::kPixels;
    for (int64_t row = 0; row < windows.rows(); ++row) {
      for_channels(p.channels, [&](auto registers, int64_t c) {
        Sums<registers> all;
        windows.each([&](int64_t i, auto columns) {
          const float* const x = p.input + windows.input(row, i) + c;
          for (int r = 0; r < registers; ++r) {
            const auto place = windows.place(c + r * L::N);
            F differences[kPixels];
            for (int k = 0; k < kPixels; ++k) {
              differences[k] = L::load(x + windows.pixel(k, columns) + r * L::N) - place.mean;
            }
            const auto largest = windows.largest(differences, place);
            const F given = L::load(grad + windows.output(row, i) + c + r * L::N);
            const F g = L::select(L::less(L::set(0), largest.value), given, L::set(0));
            all.first[r] += g;
            all.second[r] = g * largest.difference + all.second[r];
          }
        });
        all.add_to(sums + c, p.channels);
      });
    }
  });
}

void normalization_grad(const NormalizationParams& p, int64_t image, const float* grad, const float* slope,
                        const float* offset, float* output) {
  with_windows(p, image, [&](const auto& windows) {
    constexpr int kPixels = std::decay_t<decltype(windows)>::kPixels;
    for (int64_t row = 0; row < windows.rows(); ++row) {
      windows.each([&](int64_t i, auto columns) {
        const int64_t from = windows.input(row, i);
        for (int64_t c = 0; c < p.channels; c += L::N) {
          const auto place = windows.place(c);
          F differences[kPixels];
          for (int k = 0; k < kPixels; ++k) {
            differences[k] = L::load(p.input + from + windows.pixel(k, columns) + c) - place.mean;
          }
          const auto largest = windows.largest(differences, place);
          const L::M passes = L::less(L::set(0), largest.value);
          const F g = place.scale * L::load(grad + windows.output(row, i) + c);
          const F factor = L::load(slope + c), constant = L::load(offset + c);
          // The last one first: where a pixel stands for the padding beside it, its own gradient is written last.
          for (int k = kPixels - 1; k >= 0; --k) {
            const F own = L::select(L::both(largest.is[k], passes), g, L::set(0));
            L::store(output + from + windows.pixel(k, columns) + c, own + (factor * differences[k] + constant));
          }
        }
      });
    }
  });
  const Windows<1, 1> windows(p, image);
  for (int64_t row = 0; row < p.rows; ++row) {
    std::fill(output + windows.input(row, windows.count()), output + windows.input(row + 1, 0), 0.0f);
  }
}

}  // namespace FASTCTC_ISA
}  // namespace cpu
}  // namespace fastctc
