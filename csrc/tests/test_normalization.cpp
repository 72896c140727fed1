// Batch normalization, ReLU and pooling: the CPU kernels against the definition in float64.
#include "../kernels/normalization.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "check.h"

using namespace fastctc;
using namespace fastctc::testing;

namespace {

struct Layer {
  int64_t batch, rows, columns, channels, pool_rows, pool_columns;
  std::vector<int64_t> widths;
  std::vector<float> x, mean, scale, shift, added, grad, slope, offset;

  size_t in(int64_t n, int64_t h, int64_t w, int64_t c) const {
    return size_t(((n * rows + h) * columns + w) * channels + c);
  }
  size_t out(int64_t n, int64_t h, int64_t w, int64_t c) const {
    return size_t(((n * (rows / pool_rows) + h) * (columns / pool_columns) + w) * channels + c);
  }
  size_t outputs() const { return size_t(batch * (rows / pool_rows) * (columns / pool_columns) * channels); }
  double difference(size_t place) const { return double(x[place]) - mean[place % size_t(channels)]; }
  double value(size_t place) const {
    const size_t c = place % size_t(channels);
    return double(scale[c]) * difference(place) + shift[c];
  }

  // f(output, place of the largest pixel, and of all, in the input) for every pixel of the output that is not padding.
  template <class F>
  void each(int64_t n, const F& f) const {
    for (int64_t h = 0; h < rows / pool_rows; ++h) {
      for (int64_t w = 0; w < columns / pool_columns && w * pool_columns < widths[size_t(n)]; ++w) {
        for (int64_t c = 0; c < channels; ++c) {
          std::vector<size_t> pixels;
          for (int64_t r = 0; r < pool_rows; ++r) {
            for (int64_t k = 0; k < pool_columns; ++k) {
              if (w * pool_columns + k >= widths[size_t(n)]) continue;
              pixels.push_back(in(n, h * pool_rows + r, w * pool_columns + k, c));
            }
          }
          const auto larger = [&](size_t a, size_t b) { return value(a) < value(b); };
          f(out(n, h, w, c), *std::max_element(pixels.begin(), pixels.end(), larger), pixels);
        }
      }
    }
  }

  NormalizationParams params() const {
    NormalizationParams p{};
    p.input = x.data(), p.widths = widths.data();
    p.batch = batch, p.rows = rows, p.columns = columns, p.channels = channels;
    p.pool_rows = pool_rows, p.pool_columns = pool_columns;
    p.mean = mean.data(), p.scale = scale.data(), p.shift = shift.data();
    return p;
  }
};

Layer some_layer(std::mt19937& random) {
  const auto up_to = [&](int most) { return int64_t(1 + random() % unsigned(most)); };
  Layer l{};
  l.pool_rows = up_to(2);
  l.pool_columns = l.pool_rows == 2 ? up_to(2) : 1;
  l.batch = up_to(3), l.rows = l.pool_rows * up_to(4), l.columns = l.pool_columns * up_to(20);
  l.channels = 16 * up_to(6);
  const auto some = [&](int64_t count) {
    std::vector<float> values(static_cast<size_t>(count));
    for (float& v : values) v = float(int(random() % 2001) - 1000) / 500;
    return values;
  };
  for (int64_t n = 0; n < l.batch; ++n) l.widths.push_back(n == 0 ? l.columns : up_to(int(l.columns)));
  l.x = some(l.batch * l.rows * l.columns * l.channels);
  for (auto* each : {&l.mean, &l.scale, &l.shift, &l.slope, &l.offset}) *each = some(l.channels);
  for (auto* each : {&l.added, &l.grad}) *each = some(int64_t(l.outputs()));
  for (int64_t n = 0; n < l.batch; ++n) {  // no number of the padding may count
    for (int64_t h = 0; h < l.rows; ++h) {
      for (size_t i = l.in(n, h, l.widths[size_t(n)], 0); i < l.in(n, h + 1, 0, 0); ++i) l.x[i] = NAN;
    }
  }
  return l;
}

void check_sums(const std::vector<double>& found, const std::vector<double>& expected) {
  CHECK(found.size() == expected.size());
  for (size_t i = 0; i < found.size(); ++i) CHECK_NEAR(found[i], expected[i], 1e-3);
}

}  // namespace

TEST(sums_of_differences) {
  std::mt19937 random(1);
  for (int round = 0; round < 60; ++round) {
    const Layer l = some_layer(random);
    for (int64_t n = 0; n < l.batch; ++n) {
      std::vector<double> expected(size_t(2 * l.channels)), found(expected.size(), 7.0);
      for (int64_t h = 0; h < l.rows; ++h) {
        for (size_t i = l.in(n, h, 0, 0); i < l.in(n, h, l.widths[size_t(n)], 0); ++i) {
          const double difference = l.difference(i);
          expected[i % size_t(l.channels)] += difference;
          expected[size_t(l.channels) + i % size_t(l.channels)] += difference * difference;
        }
      }
      cpu::normalization_sums(l.params(), n, found.data());
      check_sums(found, expected);
    }
  }
}

TEST(the_result_is_the_largest_pixel_of_each_window) {
  std::mt19937 random(2);
  for (int round = 0; round < 60; ++round) {
    const Layer l = some_layer(random);
    for (const bool adds : {false, true}) {
      std::vector<double> expected(l.outputs());
      if (adds) std::copy(l.added.begin(), l.added.end(), expected.begin());
      std::vector<float> found(l.outputs(), 777.0f);
      for (int64_t n = 0; n < l.batch; ++n) {
        l.each(n, [&](size_t to, size_t largest, const std::vector<size_t>&) {
          expected[to] += std::max(0.0, l.value(largest));
        });
        cpu::normalization(l.params(), n, adds ? l.added.data() : nullptr, found.data());
      }
      for (size_t i = 0; i < found.size(); ++i) CHECK_NEAR(found[i], expected[i], 2e-6);
    }
  }
}

TEST(a_gradient_passes_to_the_largest_pixel) {
  std::mt19937 random(3);
  for (int round = 0; round < 60; ++round) {
    const Layer l = some_layer(random);
    std::vector<double> expected(l.x.size());
    std::vector<float> found(l.x.size(), 777.0f);
    for (int64_t n = 0; n < l.batch; ++n) {
      std::vector<double> sums(size_t(2 * l.channels)), found_sums(sums.size(), 7.0);
      l.each(n, [&](size_t from, size_t largest, const std::vector<size_t>& pixels) {
        const size_t c = from % size_t(l.channels);
        for (const size_t i : pixels) expected[i] = double(l.slope[c]) * l.difference(i) + l.offset[c];
        if (!(l.value(largest) > 0)) return;
        expected[largest] += double(l.scale[c]) * l.grad[from];
        sums[c] += l.grad[from];
        sums[size_t(l.channels) + c] += l.grad[from] * l.difference(largest);
      });
      cpu::normalization_grad_sums(l.params(), n, l.grad.data(), found_sums.data());
      check_sums(found_sums, sums);
      cpu::normalization_grad(l.params(), n, l.grad.data(), l.slope.data(), l.offset.data(), found.data());
    }
    for (size_t i = 0; i < found.size(); ++i) CHECK_NEAR(found[i], expected[i], 1e-5);
  }
}

TEST_MAIN()
