// fastctc::pack_convolution, fastctc::convolution and fastctc::convolution_weights: checks, allocation, registration.
// On the CPU only.
#include "../kernels/convolution.h"

#include <algorithm>

#include "tensors.h"

namespace fastctc {
namespace {

void check(const Tensor& t, const char* name, int64_t dims, const char* shape) {
  if (t.is_cuda() || t.scalar_type() != ScalarType::Float || t.dim() != dims || !t.is_contiguous()) {
    value_error(name, " must be a contiguous float32 tensor ", shape, " on the CPU");
  }
}

Convolution kind_of(int64_t inputs, int64_t rows, int64_t columns) {
  if (inputs == 1 && rows == 3 && columns == 3) return Convolution::kFirst3x3;
  if (inputs == 1 && rows == 5 && columns == 5) return Convolution::kFirst5x5;
  if (rows == 1 && columns == 1) return Convolution::k1x1;
  if (rows == 1 && columns == 5) return Convolution::k1x5;
  if (rows == 3 && columns == 3) return Convolution::k3x3;
  value_error("a kernel has ", rows, " rows and ", columns, " columns, expected 1x1, 1x5 or 3x3, or 5x5 of one input");
}
bool is_first(Convolution kind) { return kind == Convolution::kFirst3x3 || kind == Convolution::kFirst5x5; }

Convolution kind_of_places(int64_t places) {
  for (const Convolution kind :
       {Convolution::k1x1, Convolution::k1x5, Convolution::k3x3, Convolution::kFirst3x3, Convolution::kFirst5x5}) {
    if (cpu::convolution_places(kind) == places) return kind;
  }
  value_error("packed has ", places, " places, expected 1, 8, 9, 25 or 36");
}

void check_channels(const char* name, int64_t channels) {
  if (channels < kPanel || channels % kPanel != 0) {
    value_error(name, " are ", channels, ", expected a multiple of ", kPanel);
  }
}

Tensor pack_convolution(Tensor weight) {
  check(weight, "weight", 4, "(outputs, inputs, rows, columns)");
  const int64_t outputs = weight.size(0), inputs = weight.size(1);
  const Convolution kind = kind_of(inputs, weight.size(2), weight.size(3));
  check_channels("outputs", outputs);
  if (!is_first(kind)) check_channels("inputs", inputs);
  Tensor packed = empty_tensor(weight, {cpu::convolution_places(kind), outputs, inputs}, ScalarType::Float);
  cpu::pack_convolution(static_cast<const float*>(weight.const_data_ptr()), kind, outputs, inputs,
                        static_cast<float*>(packed.mutable_data_ptr()));
  return packed;
}

Tensor convolution(Tensor input, Tensor packed, Tensor bias, std::vector<int64_t> widths, int64_t dilation,
                   bool rectifies, bool adds_input, int64_t pool_rows, int64_t pool_columns) {
  check_images(input, "input");
  check(packed, "packed", 3, "of pack_convolution");
  check(bias, "bias", 1, "(outputs)");
  ConvolutionParams p{};
  p.kind = kind_of_places(packed.size(0));
  p.batch = input.size(0), p.inputs = input.size(1), p.rows = input.size(2), p.columns = input.size(3);
  p.outputs = packed.size(1);
  if (packed.size(2) != p.inputs || bias.size(0) != p.outputs) {
    value_error("packed is for ", packed.size(2), " inputs and ", p.outputs, " outputs, input has ", p.inputs,
                " channels, bias ", bias.size(0));
  }
  check_channels("outputs", p.outputs);
  const bool first = is_first(p.kind);
  if (!first) check_channels("inputs", p.inputs);
  if (int64_t(widths.size()) != p.batch) value_error("widths are ", widths.size(), ", expected ", p.batch);
  if (dilation < 1) value_error("dilation is ", dilation, ", expected at least 1");
  const bool pools = pool_rows != 1 || pool_columns != 1;
  if (pool_rows < 1 || pool_rows > 2 || pool_columns < 1 || pool_columns > pool_rows) {
    value_error("the pool is ", pool_rows, "x", pool_columns, ", expected 1x1, 2x1 or 2x2");
  }
  if ((pools && p.kind != Convolution::k3x3 && !first) || ((pools || first) && (dilation != 1 || adds_input))) {
    value_error("a pooled or a first layer has 3x3 or 5x5 kernels, no dilation, and its input is not added");
  }
  if (adds_input && p.inputs != p.outputs) {
    value_error("an input of ", p.inputs, " channels cannot be added to ", p.outputs, " channels");
  }
  const int64_t stride = p.kind == Convolution::kFirst5x5 ? 2 : 1;
  const int64_t rows = (p.rows + stride - 1) / stride, columns = (p.columns + stride - 1) / stride;
  Tensor output = empty_images(input, p.batch, p.outputs, rows / pool_rows, columns / pool_columns);
  p.input = static_cast<const float*>(input.const_data_ptr());
  p.weights = static_cast<const float*>(packed.const_data_ptr());
  p.bias = static_cast<const float*>(bias.const_data_ptr());
  p.output = static_cast<float*>(output.mutable_data_ptr());
  p.widths = widths.data();
  p.dilation = dilation;
  p.rectifies = rectifies;
  p.adds_input = adds_input;
  p.pool_rows = pool_rows;
  p.pool_columns = pool_columns;
  parallel_for(p.batch * cpu::convolution_tiles(p), cpu::convolution_block(p), [&](int64_t begin, int64_t end) {
    const HostWorkspace workspace(cpu::convolution_workspace(p));
    cpu::convolution(p, begin, end, workspace.get());
  });
  return output;
}

Tensor convolution_weights(Tensor input, Tensor grad, int64_t rows, int64_t columns, int64_t dilation) {
  check_images(input, "input");
  check_images(grad, "grad");
  ConvolutionWeightsParams p{};
  p.layer.batch = input.size(0), p.layer.inputs = input.size(1);
  p.layer.rows = input.size(2), p.layer.columns = input.size(3);
  p.layer.outputs = grad.size(1);
  check_channels("outputs", p.layer.outputs);
  check_channels("inputs", p.layer.inputs);
  p.layer.kind = kind_of(p.layer.inputs, rows, columns);
  if (p.layer.kind == Convolution::k1x1) value_error("a kernel has 1 row and 1 column, expected 1x5 or 3x3");
  for (const int d : {0, 2, 3}) {
    if (input.size(d) != grad.size(d)) {
      value_error("size ", d, " of input is ", input.size(d), ", of grad ", grad.size(d));
    }
  }
  if (dilation < 1) value_error("dilation is ", dilation, ", expected at least 1");
  p.layer.dilation = dilation;
  p.layer.input = static_cast<const float*>(input.const_data_ptr());
  p.grad = static_cast<const float*>(grad.const_data_ptr());
  p.chunks = std::min(cpu::convolution_weights_chunks(p), int64_t(torch::stable::get_num_threads()));
  const HostWorkspace sums(size_t(p.chunks * cpu::convolution_weights_sums(p)) * sizeof(float));
  p.sums = static_cast<float*>(sums.get());
  parallel_for(p.chunks, 1, [&](int64_t begin, int64_t end) {
    const HostWorkspace workspace(cpu::convolution_weights_workspace(p));
    for (int64_t chunk = begin; chunk < end; ++chunk) cpu::convolution_weights(p, chunk, workspace.get());
  });
  Tensor weights = empty_tensor(input, {p.layer.outputs, p.layer.inputs, rows, columns}, ScalarType::Float);
  cpu::convolution_weights_finish(p, static_cast<float*>(weights.mutable_data_ptr()));
  return weights;
}

}  // namespace

FASTCTC_DEFINE(m) {
  m.def("pack_convolution(Tensor weight) -> Tensor");
  m.def("convolution_weights(Tensor input, Tensor grad, int rows, int columns, int dilation) -> Tensor");
  m.def(
      "convolution(Tensor input, Tensor packed, Tensor bias, int[] widths, int dilation, bool rectifies, "
      "bool adds_input, int pool_rows, int pool_columns) -> Tensor");
}
FASTCTC_LIBRARY_IMPL(FASTCTC_NAMESPACE, CPU, m) {
  m.impl("pack_convolution", TORCH_BOX(&pack_convolution));
  m.impl("convolution", TORCH_BOX(&convolution));
  m.impl("convolution_weights", TORCH_BOX(&convolution_weights));
}

}  // namespace fastctc
