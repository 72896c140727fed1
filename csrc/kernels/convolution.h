// Convolution of images, of the recognizer's layers, without gradients: by Winograd's algorithm, and of the first
// layer, which has one input, by direct sums.
//
// A tile of outputs is computed from a tile of inputs in a basis in which a convolution is a product for each place: 36
// products for 16 outputs of a 3x3 kernel in place of 144, or 8 for 4 outputs of a 1x5 kernel in place of 20. Its
// rounding error is about four times that of a direct sum. Lavin and Gray, Fast Algorithms for Convolutional Neural
// Networks, arXiv:1509.09308.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fastctc {

constexpr int64_t kPanel = 16;  // channels that packed weights hold side by side

// By the rows and columns of the kernel. The first layer has one input; its 5x5 kernel has a stride of 2.
enum class Convolution { k1x1, k1x5, k3x3, kFirst3x3, kFirst5x5 };

struct ConvolutionParams {
  Convolution kind;
  const float* input;     // (N, H, W, inputs), zero in padding
  const float* weights;   // of pack_convolution()
  const float* bias;      // (outputs)
  float* output;          // (N, H / pool_rows, W / pool_columns, outputs), with a stride of 2 of half the H and W
  const int64_t* widths;  // (N) columns before pooling that are not padding: those behind them are zero
  int64_t batch, rows, columns, inputs, outputs;
  int64_t dilation;                 // of columns
  bool rectifies;                   // max(0, x)
  bool adds_input;                  // after that
  int64_t pool_rows, pool_columns;  // 1 or 2, of the windows of max-pooling, the last step
};

// The gradient of a layer without pooling, of 1x5 or 3x3 kernels, by its weights.
struct ConvolutionWeightsParams {
  ConvolutionParams layer;  // its kind, input, sizes and dilation
  const float* grad;        // (N, H, W, outputs)
  float* sums;              // a block of convolution_weights_sums() for each chunk
  int64_t chunks;           // from 1 to convolution_weights_chunks()
};

namespace cpu {
// Places of a product in each tile.
int64_t convolution_places(Convolution kind);
// Writes weights (outputs, inputs, kernel rows, kernel columns) as (places, outputs / kPanel, inputs, kPanel), and
// those of the first layer as (kernel rows, kernel columns, outputs).
void pack_convolution(const float* weights, Convolution kind, int64_t outputs, int64_t inputs, float* packed);
// Tiles of a sample, and how many are computed together.
int64_t convolution_tiles(const ConvolutionParams& p);
int64_t convolution_block(const ConvolutionParams& p);
// Tiles [begin, end) of all samples, with a workspace for one thread.
size_t convolution_workspace(const ConvolutionParams& p);
void convolution(const ConvolutionParams& p, int64_t begin, int64_t end, void* workspace);

int64_t convolution_weights_sums(const ConvolutionWeightsParams& p);
int64_t convolution_weights_chunks(const ConvolutionWeightsParams& p);
size_t convolution_weights_workspace(const ConvolutionWeightsParams& p);
// Writes the sums of a chunk, with a workspace for one thread.
void convolution_weights(const ConvolutionWeightsParams& p, int64_t chunk, void* workspace);
// Writes the gradient (outputs, inputs, kernel rows, kernel columns) by all sums.
void convolution_weights_finish(const ConvolutionWeightsParams& p, float* to);
}  // namespace cpu

}  // namespace fastctc
