// Bases of polynomials for Winograd's convolution.
#pragma once

#include "lanes.h"

namespace fastctc {
namespace cpu {
namespace FASTCTC_ISA {

// Polynomials by their values at 0, at pairs of points +-a, and at infinity. A convolution of `taps` is a product of
// these values, place by place.
template <int pairs_, int taps_>
struct Basis {
  using F = Lanes<float>::F;
  using D = Lanes<double>::F;
  static constexpr int pairs = pairs_, taps = taps_;
  static constexpr int places = 2 * pairs + 2, outputs = places - taps + 1;
  static constexpr float point[3] = {1, 2, 0.5f};

  // Row b: the coefficients of the product of (y - a^2) over all pairs but b; the last row: over all pairs.
  struct Products {
    float row[pairs + 1][pairs + 1];
  };
  static constexpr Products make() {
    Products products{};
    for (int without = 0; without <= pairs; ++without) {
      float* const c = products.row[without];
      c[0] = 1;
      for (int b = 0; b < pairs; ++b) {
        if (b == without) continue;
        for (int k = pairs; k >= 0; --k) c[k] = (k > 0 ? c[k - 1] : 0) - c[k] * point[b] * point[b];
      }
    }
    return products;
  }
  static constexpr Products products = make();

  FASTCTC_LANE void enter(F* x) {
    F y[places] = {};
    FASTCTC_UNROLL for (int i = 0; i <= pairs; ++i) {
      const float c = products.row[pairs][i];
      y[0] = i == 0 ? c * x[0] : c * x[2 * i] + y[0];
      y[places - 1] = i == 0 ? c * x[1] : c * x[2 * i + 1] + y[places - 1];
    }
    FASTCTC_UNROLL for (int b = 0; b < pairs; ++b) {
      F even{}, odd{};
      FASTCTC_UNROLL for (int i = 0; i < pairs; ++i) {
        const float c = products.row[b][i];
        even = i == 0 ? c * x[2] : c * x[2 * i + 2] + even;
        odd = i == 0 ? c * x[1] : c * x[2 * i + 1] + odd;
      }
      y[2 * b + 1] = even + point[b] * odd;
      y[2 * b + 2] = even - point[b] * odd;
    }
    FASTCTC_UNROLL for (int i = 0; i < places; ++i) x[i] = y[i];
  }
  FASTCTC_LANE void leave(F* x) {
    F even[pairs], odd[pairs], y[outputs];
    FASTCTC_UNROLL for (int b = 0; b < pairs; ++b) {
      even[b] = x[2 * b + 1] + x[2 * b + 2];
      odd[b] = x[2 * b + 1] - x[2 * b + 2];
    }
    float power[pairs];
    FASTCTC_UNROLL for (int b = 0; b < pairs; ++b) power[b] = 1;
    FASTCTC_UNROLL for (int i = 0; i < outputs; ++i) {
      F sum = i == 0 ? x[0] + even[0] : power[0] * (i % 2 ? odd : even)[0];
      FASTCTC_UNROLL for (int b = 1; b < pairs; ++b) sum = power[b] * (i % 2 ? odd : even)[b] + sum;
      y[i] = i == outputs - 1 ? sum + x[places - 1] : sum;
      FASTCTC_UNROLL for (int b = 0; b < pairs; ++b) power[b] *= point[b];
    }
    FASTCTC_UNROLL for (int i = 0; i < outputs; ++i) x[i] = y[i];
  }
  // The transpose of leave().
  FASTCTC_LANE void leave_back(F* x) {
    F even[pairs], odd[pairs];
    float power[pairs];
    FASTCTC_UNROLL for (int b = 0; b < pairs; ++b) {
      even[b] = x[0];
      power[b] = 1;
    }
    FASTCTC_UNROLL for (int i = 1; i < outputs; ++i) {
      FASTCTC_UNROLL for (int b = 0; b < pairs; ++b) {
        power[b] *= point[b];
        F& sum = (i % 2 ? odd : even)[b];
        sum = i == 1 ? power[b] * x[1] : power[b] * x[i] + sum;
      }
    }
    x[places - 1] = x[outputs - 1];
    FASTCTC_UNROLL for (int b = 0; b < pairs; ++b) {
      x[2 * b + 1] = even[b] + odd[b];
      x[2 * b + 2] = even[b] - odd[b];
    }
  }
  // Row k: the powers of the point of place k, divided by its distances to the others.
  struct Weights {
    double row[places][taps];
  };
  static constexpr Weights make_weights() {
    double at[places] = {};
    for (int b = 0; b < pairs; ++b) {
      at[2 * b + 1] = point[b];
      at[2 * b + 2] = -point[b];
    }
    Weights weights{};
    for (int k = 0; k < places - 1; ++k) {
      double power = 1;
      for (int i = 0; i < places - 1; ++i) power /= i == k ? 1 : at[k] - at[i];
      for (int tap = 0; tap < taps; ++tap, power *= at[k]) weights.row[k][tap] = power;
    }
    weights.row[places - 1][taps - 1] = 1;
    return weights;
  }
  static constexpr Weights weights = make_weights();

  // The weights of all places by those of the taps, both some steps apart.
  FASTCTC_LANE void weigh(const D* x, int x_step, D* y, int y_step) {
    for (int k = 0; k < places; ++k) {
      D sum{};
      for (int tap = 0; tap < taps; ++tap) sum += weights.row[k][tap] * x[tap * x_step];
      y[k * y_step] = sum;
    }
  }
  // The transpose of weigh().
  FASTCTC_LANE void weigh_back(const D* x, int x_step, D* y, int y_step) {
    for (int tap = 0; tap < taps; ++tap) {
      D sum{};
      for (int k = 0; k < places; ++k) sum += weights.row[k][tap] * x[k * x_step];
      y[tap * y_step] = sum;
    }
  }
};
// A single tap is a product already.
struct Single {
  using F = Lanes<float>::F;
  using D = Lanes<double>::F;
  static constexpr int places = 1, outputs = 1, taps = 1;
  FASTCTC_LANE void enter(F*) {}
  FASTCTC_LANE void leave(F*) {}
  FASTCTC_LANE void leave_back(F*) {}
  FASTCTC_LANE void weigh(const D* x, int, D* y, int) { *y = *x; }
  FASTCTC_LANE void weigh_back(const D* x, int, D* y, int) { *y = *x; }
};

}  // namespace FASTCTC_ISA
}  // namespace cpu
}  // namespace fastctc
