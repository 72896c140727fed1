// Batch normalization in training, with what follows it in the recognizer: ReLU, max-pooling or a residual sum. Images
// of different widths are padded on the right, and padding is not counted.
//
//   y = max(0, weight (x - mean) / sqrt(variance + eps) + bias)     Ioffe and Szegedy, arXiv:1502.03167, section 3
//
// A gradient passes to the first largest pixel of a window if it is above zero.
#pragma once

#include <cstdint>

namespace fastctc {

struct NormalizationParams {
  const float* input;     // (N, H, W, channels), anything in the padding
  const int64_t* widths;  // (N) columns that are not padding, from 1 to W
  int64_t batch, rows, columns, channels;
  int64_t pool_rows, pool_columns;    // 1 or 2, of the windows of max-pooling
  const float *mean, *scale, *shift;  // (channels): y = max(0, scale * (x - mean) + shift)
};

namespace cpu {
constexpr int64_t kNormalizedTogether = 16;  // channels are a multiple of it

// Writes (2, channels): the sums over an image of the differences from `mean`, and of their squares.
void normalization_sums(const NormalizationParams& p, int64_t image, double* sums);
// Writes an image of (N, H / pool_rows, W / pool_columns, channels), zero in the padding, plus `added`, if it is given.
void normalization(const NormalizationParams& p, int64_t image, const float* added, float* output);
// Of the gradient g by each normalized pixel: writes (2, channels), the sums over an image of g and of g * (x - mean).
void normalization_grad_sums(const NormalizationParams& p, int64_t image, const float* grad, double* sums);
// Writes scale * g + slope * (x - mean) + offset in an image of (N, H, W, channels), zero in the padding.
void normalization_grad(const NormalizationParams& p, int64_t image, const float* grad, const float* slope,
                        const float* offset, float* output);
}  // namespace cpu

}  // namespace fastctc
