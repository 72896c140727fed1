// The delay penalty: the score of a path falls by `penalty` for each frame that a label starts later.
//
// In every frame label j is tilted by exp(penalty * (j + 1)), and so are the blanks after it. Over a path the
// logarithms of the tilts add up to penalty times the number of labels begun by each frame, a sum that falls by
// `penalty` for each frame of delay.
#pragma once

#include <cmath>
#include <cstdint>

#include "emission.h"

namespace fastctc {

// Tilts 0 to count - 1, a multiple of W::N: exp(penalty * j) for the blanks before label j.
template <class X>
FASTCTC_HD void fill_tilts(typename X::Memory tilt, int64_t count, double penalty) {
  using W = typename X::Warp;
  for (int64_t j = 0; j < count; j += W::N) {
    const auto logarithm = W::make([&](int lane) { return typename W::Scalar(penalty * double(j + lane)); });
    X::constant(exponential<W>(logarithm)).template store<1>(tilt + j, 0);
  }
}

// The largest exponent, of 2, of the tilts of a target.
FASTCTC_HD double largest_tilt(double penalty, int64_t length) {
  return std::fabs(penalty) * double(length + 1) / kLn2;
}

// What the tilts add to the score of every path, so that delays count from the middle frame.
FASTCTC_HD double tilt_of_all_paths(double penalty, int64_t length, int64_t frames) {
  return penalty * double(length) * double(frames + 1) / 2;
}

}  // namespace fastctc
