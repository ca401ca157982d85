// SPDX-License-Identifier: Apache-2.0
// C entry points of reparameterize: argument checks and the division of a call into tasks.
#include "molfuse/reparameterize.h"

#include <algorithm>

#include "reparameterize/kernels.h"
#include "runtime/check.h"
#include "runtime/device_call.h"
#include "runtime/parallel.h"

namespace molfuse {
namespace {

LatentOperand operand_of(const char* name, const molfuse_tensor& tensor, const molfuse_tensor& like, bool output) {
  check_dtype(name, tensor, {like.dtype});
  check_shape(name, tensor, {like.size[0], like.size[1]});
  if (output) check_output(name, tensor);
  return {tensor.data, tensor.stride[0], tensor.stride[1]};
}

ReparameterizeProblem check_problem(const molfuse_reparameterize_args& args, bool backward) {
  if (!is_float(args.mean.dtype)) invalid("mean: expected element type f16, bf16, f32 or f64, got %s", molfuse_dtype_name(args.mean.dtype));
  check_shape("mean", args.mean, {kAny, kAny});
  ReparameterizeProblem p{};
  p.dtype = args.mean.dtype;
  p.dim = args.mean.size[1];
  p.count = args.mean.size[0] * p.dim;
  p.philox = args.philox;
  p.mean = {args.mean.data, args.mean.stride[0], args.mean.stride[1]};
  p.log_var = operand_of("log_var", args.log_var, args.mean, false);
  if (!backward) {
    p.z = operand_of("z", args.z, args.mean, true);
    return p;
  }
  p.grad_z = operand_of("grad_z", args.grad_z, args.mean, false);
  if (present(args.grad_mean)) p.grad_mean = operand_of("grad_mean", args.grad_mean, args.mean, true);
  if (present(args.grad_log_var)) p.grad_log_var = operand_of("grad_log_var", args.grad_log_var, args.mean, true);
  return p;
}

void run(const molfuse_reparameterize_args& args, const molfuse_execution& execution, bool backward) {
  const ReparameterizeProblem p = check_problem(args, backward);
  if (backward && p.grad_mean.data == nullptr && p.grad_log_var.data == nullptr) return;
  MOLFUSE_ON_DEVICE(execution, backward ? "molfuse_reparameterize_backward" : "molfuse_reparameterize_forward", reparameterize_device, p)
  const int64_t count = p.count, tasks = divide_up(count, kReparameterizeTask);
  const ReparameterizeKernels& kernels = select_reparameterize_kernels();
  const auto kernel = backward ? kernels.backward : kernels.forward;
  const int threads = thread_count(with_worthwhile_threads(execution, 2.0 * static_cast<double>(count)), tasks);
  parallel_tasks(threads, tasks, chunk_of(tasks, threads), [&](int64_t n, int) {
    kernel(p, n * kReparameterizeTask, std::min(count, (n + 1) * kReparameterizeTask));
  });
}

}  // namespace
}  // namespace molfuse

using namespace molfuse;

extern "C" {

molfuse_status molfuse_reparameterize_forward(const molfuse_reparameterize_args* args, const molfuse_execution* execution) {
  return guard([&] {
    const molfuse_execution where = read_execution(execution, "molfuse_reparameterize_forward");
    run(read_args(args, "molfuse_reparameterize_forward"), where, false);
  });
}

molfuse_status molfuse_reparameterize_backward(const molfuse_reparameterize_args* args, const molfuse_execution* execution) {
  return guard([&] {
    const molfuse_execution where = read_execution(execution, "molfuse_reparameterize_backward");
    run(read_args(args, "molfuse_reparameterize_backward"), where, true);
  });
}

}  // extern "C"
