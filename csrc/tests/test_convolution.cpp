// Convolution: the CPU kernel against the definition in float64.
#include "../kernels/convolution.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "check.h"

using namespace fastctc;
using namespace fastctc::testing;

namespace {

struct Layer {
  Convolution kind;
  int batch, rows, columns, inputs, outputs, dilation = 1;
  bool rectifies = true, adds_input = false;
  int pool_rows = 1, pool_columns = 1;

  bool is_first() const { return kind == Convolution::kFirst3x3 || kind == Convolution::kFirst5x5; }
  int stride() const { return kind == Convolution::kFirst5x5 ? 2 : 1; }
  int kernel_rows() const {
    return kind == Convolution::kFirst5x5 ? 5 : kind == Convolution::k1x1 || kind == Convolution::k1x5 ? 1 : 3;
  }
  int kernel_columns() const { return kind == Convolution::k1x5 ? 5 : kernel_rows(); }
  int out_rows() const { return (rows + stride() - 1) / stride(); }
  int out_columns() const { return (columns + stride() - 1) / stride(); }
};

struct Numbers {
  std::vector<float> input, weights, bias;
  std::vector<int64_t> widths;
};

Numbers draw(const Layer& l, std::mt19937& random) {
  const auto some = [&](int64_t count) {
    std::vector<float> x(static_cast<size_t>(count));
    for (float& v : x) v = float(random() % 2001) / 1000 - 1;
    return x;
  };
  Numbers n;
  n.input = some(int64_t(l.batch) * l.rows * l.columns * l.inputs);
  n.weights = some(int64_t(l.outputs) * l.inputs * l.kernel_rows() * l.kernel_columns());
  for (float& w : n.weights) w /= std::sqrt(float(l.inputs * l.kernel_rows() * l.kernel_columns()));
  n.bias = some(l.outputs);
  for (int i = 0; i < l.batch; ++i) {
    n.widths.push_back(i == 0 ? l.out_columns() : 1 + int64_t(random() % unsigned(l.out_columns())));
    for (int row = 0; row < l.rows; ++row) {
      for (int64_t x = n.widths.back() * l.stride() * l.inputs; x < l.columns * l.inputs; ++x) {
        n.input[size_t((int64_t(i) * l.rows + row) * l.columns * l.inputs + x)] = 0;
      }
    }
  }
  return n;
}

// (N, H, W, outputs) before pooling.
std::vector<double> definition(const Layer& l, const Numbers& n) {
  std::vector<double> y;
  const int rows = l.kernel_rows(), columns = l.kernel_columns();
  for (int i = 0; i < l.batch; ++i) {
    for (int h = 0; h < l.out_rows(); ++h) {
      for (int w = 0; w < l.out_columns(); ++w) {
        for (int o = 0; o < l.outputs; ++o) {
          double sum = n.bias[size_t(o)];
          const auto at = [&](int row, int column) {
            return (size_t(i * l.rows + row) * size_t(l.columns) + size_t(column)) * size_t(l.inputs);
          };
          for (int r = 0; r < rows; ++r) {
            for (int c = 0; c < columns; ++c) {
              const int row = h * l.stride() + r - rows / 2;
              const int column = w * l.stride() + (c - columns / 2) * l.dilation;
              if (row < 0 || row >= l.rows || column < 0 || column >= l.columns) continue;
              for (int k = 0; k < l.inputs; ++k) {
                sum += double(n.input[at(row, column) + size_t(k)]) *
                       n.weights[size_t(((o * l.inputs + k) * rows + r) * columns + c)];
              }
            }
          }
          if (l.rectifies) sum = std::max(0.0, sum);
          if (w >= n.widths[size_t(i)]) sum = 0;
          y.push_back(sum + (l.adds_input ? n.input[at(h, w) + size_t(o)] : 0));
        }
      }
    }
  }
  return y;
}

std::vector<double> pooled(const Layer& l, const std::vector<double>& x) {
  std::vector<double> y;
  for (int i = 0; i < l.batch; ++i) {
    for (int h = 0; h + l.pool_rows <= l.out_rows(); h += l.pool_rows) {
      for (int w = 0; w + l.pool_columns <= l.out_columns(); w += l.pool_columns) {
        for (int o = 0; o < l.outputs; ++o) {
          double top = -INFINITY;
          for (int r = 0; r < l.pool_rows; ++r) {
            for (int c = 0; c < l.pool_columns; ++c) {
              top = std::max(top, x[size_t(((i * l.out_rows() + h + r) * l.out_columns() + w + c) * l.outputs + o)]);
            }
          }
          y.push_back(top);
        }
      }
    }
  }
  return y;
}

// In as many parts as named, as threads would.
std::vector<float> compute(const Layer& l, const Numbers& n, int parts = 1) {
  std::vector<float> packed(size_t(cpu::convolution_places(l.kind)) * size_t(l.inputs) * size_t(l.outputs));
  cpu::pack_convolution(n.weights.data(), l.kind, l.outputs, l.inputs, packed.data());
  std::vector<float> y(size_t(l.batch) * size_t(l.out_rows() / l.pool_rows) * size_t(l.out_columns() / l.pool_columns) *
                           size_t(l.outputs),
                       777.0f);
  ConvolutionParams p{};
  p.kind = l.kind;
  p.input = n.input.data();
  p.weights = packed.data();
  p.bias = n.bias.data();
  p.output = y.data();
  p.widths = n.widths.data();
  p.batch = l.batch, p.rows = l.rows, p.columns = l.columns, p.inputs = l.inputs, p.outputs = l.outputs;
  p.dilation = l.dilation;
  p.rectifies = l.rectifies, p.adds_input = l.adds_input;
  p.pool_rows = l.pool_rows, p.pool_columns = l.pool_columns;
  const int64_t tiles = p.batch * cpu::convolution_tiles(p);
  for (int part = 0; part < parts; ++part) {
    std::vector<char> memory(cpu::convolution_workspace(p) + 64, char(0xff));  // NaN in every float
    void* const aligned = reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(memory.data()) + 63) / 64 * 64);
    cpu::convolution(p, tiles * part / parts, tiles * (part + 1) / parts, aligned);
  }
  return y;
}

Layer some_layer(std::mt19937& random) {
  Layer l;
  l.kind = Convolution(random() % 5);
  l.batch = 1 + int(random() % 3);
  l.rows = 1 + int(random() % 9);
  l.columns = 1 + int(random() % 40);
  l.inputs = 16 * (1 + int(random() % 3));
  l.outputs = 16 * (1 + int(random() % 3));
  l.rectifies = random() % 2;
  if (l.is_first()) l.inputs = 1;
  if ((l.is_first() || l.kind == Convolution::k3x3) && random() % 2) {
    l.pool_rows = 2;
    l.pool_columns = 1 + int(random() % 2);
  } else if (!l.is_first()) {
    l.dilation = 1 + int(random() % 3);
    l.adds_input = random() % 2;
  }
  if (l.adds_input) l.outputs = l.inputs;
  return l;
}

}  // namespace

TEST(equals_the_definition) {
  std::mt19937 random(1);
  for (int round = 0; round < 150; ++round) {
    const Layer l = some_layer(random);
    const Numbers n = draw(l, random);
    const std::vector<double> expected = pooled(l, definition(l, n));
    const std::vector<float> got = compute(l, n);
    CHECK(got.size() == expected.size());
    for (size_t i = 0; i < got.size(); ++i) CHECK_NEAR(got[i], expected[i], 2e-5);
  }
}

TEST(neither_threads_nor_other_samples_change_a_bit) {
  std::mt19937 random(2);
  for (int round = 0; round < 30; ++round) {
    const Layer l = some_layer(random);
    const Numbers n = draw(l, random);
    const std::vector<float> whole = compute(l, n);
    CHECK(compute(l, n, 3) == whole);
    Layer one = l;
    one.batch = 1;
    for (int i = 0; i < l.batch; ++i) {
      Numbers own = n;
      const size_t size = n.input.size() / size_t(l.batch), of_output = whole.size() / size_t(l.batch);
      own.input.assign(n.input.begin() + std::ptrdiff_t(size) * i, n.input.begin() + std::ptrdiff_t(size) * (i + 1));
      own.widths = {n.widths[size_t(i)]};
      const std::vector<float> alone = compute(one, own);
      CHECK(std::equal(alone.begin(), alone.end(), whole.begin() + std::ptrdiff_t(of_output) * i));
    }
  }
}

TEST(the_gradient_by_weights_equals_the_definition) {
  std::mt19937 random(4);
  for (int round = 0; round < 40; ++round) {
    Layer l = some_layer(random);
    l.kind = round % 2 ? Convolution::k3x3 : Convolution::k1x5;
    l.inputs = 16 * (1 + int(random() % 2));
    l.dilation = round % 2 ? 1 : 1 + int(random() % 3);
    const Numbers n = draw(l, random);
    Layer of_grad = l;
    of_grad.inputs = l.outputs;
    const std::vector<float> grad = draw(of_grad, random).input;
    const int rows = l.kernel_rows(), columns = l.kernel_columns();
    std::vector<double> expected(n.weights.size(), 0.0);
    for (int i = 0; i < l.batch; ++i) {
      for (int h = 0; h < l.rows; ++h) {
        for (int w = 0; w < l.columns; ++w) {
          for (int t = 0; t < rows * columns; ++t) {
            const int row = h + t / columns - rows / 2, column = w + (t % columns - columns / 2) * l.dilation;
            if (row < 0 || row >= l.rows || column < 0 || column >= l.columns) continue;
            const float* const x = &n.input[size_t(((i * l.rows + row) * l.columns + column) * l.inputs)];
            const float* const g = &grad[size_t(((i * l.rows + h) * l.columns + w) * l.outputs)];
            for (int o = 0; o < l.outputs; ++o) {
              for (int k = 0; k < l.inputs; ++k) {
                expected[size_t((o * l.inputs + k) * rows * columns + t)] += double(g[o]) * x[k];
              }
            }
          }
        }
      }
    }
    ConvolutionWeightsParams p{};
    p.layer.kind = l.kind;
    p.layer.input = n.input.data();
    p.layer.batch = l.batch, p.layer.rows = l.rows, p.layer.columns = l.columns;
    p.layer.inputs = l.inputs, p.layer.outputs = l.outputs, p.layer.dilation = l.dilation;
    p.grad = grad.data();
    p.chunks = 1 + int(random() % 3);
    std::vector<float> sums(size_t(p.chunks * cpu::convolution_weights_sums(p)) + 16, NAN), got(expected.size());
    p.sums = sums.data();
    for (int64_t chunk = 0; chunk < p.chunks; ++chunk) {
      std::vector<char> memory(cpu::convolution_weights_workspace(p) + 64, char(0xff));
      void* const aligned = reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(memory.data()) + 63) / 64 * 64);
      cpu::convolution_weights(p, chunk, aligned);
    }
    cpu::convolution_weights_finish(p, got.data());
    for (size_t i = 0; i < got.size(); ++i) CHECK_NEAR(got[i], expected[i], 1e-3);
  }
}

TEST(nan_stays_in_its_tiles) {
  std::mt19937 random(3);
  Layer l;
  l.kind = Convolution::k3x3;
  l.batch = 1, l.rows = 8, l.columns = 40, l.inputs = l.outputs = 16;
  Numbers n = draw(l, random);
  n.input[size_t((3 * 40 + 20) * 16 + 5)] = std::nanf("");
  const std::vector<float> y = compute(l, n);
  CHECK(std::isnan(y[size_t((3 * 40 + 20) * 16)]));
  CHECK(!std::isnan(y[size_t((3 * 40 + 10) * 16)]) && !std::isnan(y[size_t((3 * 40 + 30) * 16)]));
}

TEST_MAIN()
