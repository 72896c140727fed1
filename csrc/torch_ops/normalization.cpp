// fastctc::normalization and fastctc::normalization_grad: checks, allocation, registration. On the CPU only.
#include "../kernels/normalization.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>

#include "tensors.h"

namespace fastctc {
namespace {

const float* data(const Tensor& t) { return static_cast<const float*>(t.const_data_ptr()); }
float* data_of(Tensor& t) { return static_cast<float*>(t.mutable_data_ptr()); }

void check_shape(const Tensor& t, const char* name, std::array<int64_t, 4> shape) {
  check_images(t, name);
  for (int d = 0; d < 4; ++d) {
    if (t.size(d) != shape[size_t(d)]) {
      value_error("size ", d, " of ", name, " is ", t.size(d), ", expected ", shape[size_t(d)]);
    }
  }
}

void check_channels(const Tensor& t, const char* name, int64_t channels) {
  if (t.is_cuda() || t.scalar_type() != ScalarType::Float || t.dim() != 1 || !t.is_contiguous()) {
    value_error(name, " must be a contiguous float32 tensor (channels) on the CPU");
  }
  if (t.size(0) != channels) value_error(name, " is of ", t.size(0), " channels, expected ", channels);
}

// An op in the making: its sizes, the means, and the factors of the normalization.
struct Layer {
  NormalizationParams p{};
  std::vector<int64_t> widths;
  double count;  // pixels that are not padding
  std::vector<float> scale;

  Layer(const Tensor& input, const Tensor& weight, const Tensor& bias, std::vector<int64_t> all_widths,
        int64_t pool_rows, int64_t pool_columns)
      : widths(std::move(all_widths)) {
    check_images(input, "input");
    p.batch = input.size(0), p.channels = input.size(1), p.rows = input.size(2), p.columns = input.size(3);
    if (p.batch < 1 || p.rows < 1 || p.channels < 1 || p.channels % cpu::kNormalizedTogether != 0) {
      value_error("input has ", p.batch, " images of ", p.channels, " channels and ", p.rows,
                  " rows, expected images, rows, and a multiple of ", cpu::kNormalizedTogether, " channels");
    }
    check_channels(weight, "weight", p.channels);
    check_channels(bias, "bias", p.channels);
    if (int64_t(widths.size()) != p.batch) value_error("widths are ", widths.size(), ", expected ", p.batch);
    for (const int64_t width : widths) {
      if (width < 1 || width > p.columns) value_error("a width is ", width, ", expected 1 to ", p.columns);
    }
    if (pool_rows < 1 || pool_rows > 2 || pool_columns < 1 || pool_columns > pool_rows) {
      value_error("the pool is ", pool_rows, "x", pool_columns, ", expected 1x1, 2x1 or 2x2");
    }
    if (p.rows % pool_rows != 0 || p.columns % pool_columns != 0) {
      value_error("input has ", p.rows, " rows and ", p.columns, " columns, expected a multiple of the pool, ",
                  pool_rows, "x", pool_columns);
    }
    p.input = data(input);
    p.widths = widths.data();
    p.pool_rows = pool_rows, p.pool_columns = pool_columns;
    p.shift = data(bias);
    count = double(p.rows * std::accumulate(widths.begin(), widths.end(), int64_t(0)));
  }

  std::array<int64_t, 4> output_shape() const {
    return {p.batch, p.channels, p.rows / p.pool_rows, p.columns / p.pool_columns};
  }

  void set_statistics(const Tensor& mean, const Tensor& variance, const Tensor& weight, double eps) {
    p.mean = data(mean);
    scale.resize(size_t(p.channels));
    for (size_t c = 0; c < scale.size(); ++c) {
      scale[c] = float(double(data(weight)[c]) / std::sqrt(double(data(variance)[c]) + eps));
    }
    p.scale = scale.data();
  }

  // f(image) on several threads.
  template <class F>
  void for_images(const F& f) const {
    parallel_for(p.batch, 1, [&](int64_t begin, int64_t end) {
      for (int64_t image = begin; image < end; ++image) f(image);
    });
  }

  // (2, channels): the sums of all images, in their order, of what f(image, sums) writes.
  template <class F>
  std::vector<double> sums(const F& f) const {
    const size_t size = size_t(2 * p.channels);
    std::vector<double> all(size_t(p.batch) * size);
    for_images([&](int64_t image) { f(image, all.data() + size_t(image) * size); });
    for (size_t i = size; i < all.size(); ++i) all[i % size] += all[i];
    all.resize(size);
    return all;
  }
};

Tensors<3> normalization(Tensor input, Tensor weight, Tensor bias, std::vector<int64_t> widths, double eps,
                         int64_t pool_rows, int64_t pool_columns, std::optional<Tensor> added) {
  Layer layer(input, weight, bias, std::move(widths), pool_rows, pool_columns);
  NormalizationParams& p = layer.p;
  const auto [batch, channels, rows, columns] = layer.output_shape();
  if (added.has_value()) check_shape(*added, "added", layer.output_shape());
  Tensor mean = empty_tensor(input, {channels}, ScalarType::Float);
  Tensor variance = empty_tensor(input, {channels}, ScalarType::Float);
  p.mean = p.input;  // differences from a first pixel: squares of a large mean would hide a small variance
  const std::vector<double> sums =
      layer.sums([&](int64_t image, double* to) { cpu::normalization_sums(p, image, to); });
  for (int64_t c = 0; c < channels; ++c) {
    const double difference = sums[size_t(c)] / layer.count;
    data_of(mean)[c] = float(double(p.input[c]) + difference);
    const double square = sums[size_t(channels + c)] / layer.count;
    // A comparison with NaN is false, so NaN stays.
    data_of(variance)[c] = float(square < difference * difference ? 0.0 : square - difference * difference);
  }
  layer.set_statistics(mean, variance, weight, eps);
  Tensor output = empty_images(input, batch, channels, rows, columns);
  const float* const more = added.has_value() ? data(*added) : nullptr;
  float* const to = data_of(output);
  layer.for_images([&](int64_t image) { cpu::normalization(p, image, more, to); });
  return {output, mean, variance};
}

Tensors<3> normalization_grad(Tensor grad, Tensor input, Tensor weight, Tensor bias, Tensor mean, Tensor variance,
                              std::vector<int64_t> widths, double eps, int64_t pool_rows, int64_t pool_columns) {
  Layer layer(input, weight, bias, std::move(widths), pool_rows, pool_columns);
  const NormalizationParams& p = layer.p;
  check_shape(grad, "grad", layer.output_shape());
  check_channels(mean, "mean", p.channels);
  check_channels(variance, "variance", p.channels);
  layer.set_statistics(mean, variance, weight, eps);
  const std::vector<double> sums =
      layer.sums([&](int64_t image, double* to) { cpu::normalization_grad_sums(p, image, data(grad), to); });
  Tensor by_weight = tensor_like(weight), by_bias = tensor_like(bias);
  std::vector<float> slope(size_t(p.channels)), offset(size_t(p.channels));
  for (int64_t c = 0; c < p.channels; ++c) {
    const double inverse = 1 / std::sqrt(double(data(variance)[c]) + eps);
    const double of_bias = sums[size_t(c)], of_weight = sums[size_t(p.channels + c)] * inverse;
    const double scale = double(data(weight)[c]) * inverse;
    data_of(by_bias)[c] = float(of_bias);
    data_of(by_weight)[c] = float(of_weight);
    slope[size_t(c)] = float(-scale * inverse * of_weight / layer.count);
    offset[size_t(c)] = float(-scale * of_bias / layer.count);
  }
  Tensor by_input = empty_images(input, p.batch, p.channels, p.rows, p.columns);
  float* const to = data_of(by_input);
  layer.for_images(
      [&](int64_t image) { cpu::normalization_grad(p, image, data(grad), slope.data(), offset.data(), to); });
  return {by_input, by_weight, by_bias};
}

}  // namespace

FASTCTC_DEFINE(m) {
  m.def(
      "normalization(Tensor input, Tensor weight, Tensor bias, int[] widths, float eps, int pool_rows, "
      "int pool_columns, Tensor? added) -> (Tensor, Tensor, Tensor)");
  m.def(
      "normalization_grad(Tensor grad, Tensor input, Tensor weight, Tensor bias, Tensor mean, Tensor variance, "
      "int[] widths, float eps, int pool_rows, int pool_columns) -> (Tensor, Tensor, Tensor)");
}
FASTCTC_LIBRARY_IMPL(FASTCTC_NAMESPACE, CPU, m) {
  m.impl("normalization", TORCH_BOX(&normalization));
  m.impl("normalization_grad", TORCH_BOX(&normalization_grad));
}

}  // namespace fastctc
