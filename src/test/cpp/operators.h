// SPDX-License-Identifier: Apache-2.0
// One problem of every operator with a device kernel, forward and backward, for the tests that all of them must pass.
#pragma once

#include "molfuse/attention.h"
#include "molfuse/encoder_epilogue.h"
#include "molfuse/graph_attention.h"
#include "molfuse/latent_concat.h"
#include "molfuse/reparameterize.h"
#include "molfuse/vae_loss.h"
#include "support.h"

namespace molfuse_test {

using Views = std::vector<molfuse_tensor>;

struct Operator {
  std::string function;
  std::vector<TestTensor> inputs, outputs;
  std::function<molfuse_status(const Views& in, const Views& out, const molfuse_execution*)> run;

  static Views views(std::vector<TestTensor>& tensors) {
    Views list;
    for (TestTensor& tensor : tensors) list.push_back(tensor.view());
    return list;
  }
  Views input_views() { return views(inputs); }
  Views output_views() { return views(outputs); }
  molfuse_status call(const molfuse_execution* execution) { return run(input_views(), output_views(), execution); }

  std::vector<double> results() const {
    std::vector<double> all;
    for (const TestTensor& output : outputs) {
      const std::vector<double> values = output.values();
      all.insert(all.end(), values.begin(), values.end());
    }
    return all;
  }
  std::vector<std::vector<unsigned char>> input_bytes() const {
    std::vector<std::vector<unsigned char>> all;
    for (const TestTensor& input : inputs) all.push_back(input.bytes());
    return all;
  }
};

inline void add_latent_concat(std::vector<Operator>& list, Random& random) {
  // Few graphs with many nodes: their sums take scratch memory on a device.
  const TestTensor graph_ptr = TestTensor::of(MOLFUSE_I64, {3}, {0, 700, 701});
  const TestTensor a = TestTensor::random(random, MOLFUSE_F32, {701, 24}), b = TestTensor::random(random, MOLFUSE_F32, {701, 7});
  list.push_back({"molfuse_latent_concat_forward", {graph_ptr, a, b}, {TestTensor(MOLFUSE_F32, {2, 31})},
                  [](const Views& in, const Views& out, const molfuse_execution* execution) {
                    auto args = zeroed<molfuse_latent_concat_args>();
                    args.graph_ptr = in[0];
                    args.layers = &in[1];
                    args.num_layers = 2;
                    args.out = out[0];
                    return molfuse_latent_concat_forward(&args, execution);
                  }});
  list.push_back({"molfuse_latent_concat_backward", {graph_ptr, TestTensor::random(random, MOLFUSE_F32, {2, 31})},
                  {TestTensor(MOLFUSE_F32, {701, 24}), TestTensor(MOLFUSE_F32, {701, 7})},
                  [](const Views& in, const Views& out, const molfuse_execution* execution) {
                    auto args = zeroed<molfuse_latent_concat_args>();
                    args.graph_ptr = in[0];
                    args.grad_out = in[1];
                    args.layers = args.grad_layers = out.data();
                    args.num_layers = 2;
                    return molfuse_latent_concat_backward(&args, execution);
                  }});
}

inline void add_graph_attention(std::vector<Operator>& list, Random& random) {
  // A node with enough edges in and out to be a hub, which takes scratch memory on a device.
  const int64_t hub = kSlow ? 50 : 1100, nodes = 20, edges = 2 * hub;
  TestTensor from(MOLFUSE_I64, {edges}), to(MOLFUSE_I64, {edges});
  for (int64_t e = 0; e < edges; ++e) {
    from.set(e, e < hub ? static_cast<double>(between(random, 0, nodes - 1)) : 4);
    to.set(e, e < hub ? 4 : static_cast<double>(between(random, 0, nodes - 1)));
  }
  auto line = [](int64_t size) { return TestTensor(MOLFUSE_I64, {size}); };
  TestTensor row_ptr = line(nodes + 1), source = line(edges), row_ptr_t = line(nodes + 1), target = line(edges), edge_id = line(edges);
  const molfuse_graph graph = {row_ptr.view(), source.view(), row_ptr_t.view(), target.view(), edge_id.view()};
  const molfuse_tensor from_view = from.view(), to_view = to.view();
  EXPECT_EQ(molfuse_graph_from_edges(&from_view, &to_view, nodes, &graph, nullptr, nullptr), MOLFUSE_OK) << molfuse_last_error();
  EXPECT_EQ(molfuse_graph_transpose(&graph, nullptr), MOLFUSE_OK) << molfuse_last_error();
  auto rows = [&] { return TestTensor::random(random, MOLFUSE_F32, {nodes, 2, 16}); };
  const TestTensor query = rows(), key = rows(), value = rows(), grad_out = rows();
  auto arguments = [](const Views& in) {
    auto args = zeroed<molfuse_graph_attention_args>();
    args.query = in[0];
    args.key = in[1];
    args.value = in[2];
    args.graph.row_ptr = in[3];
    args.graph.source = in[4];
    args.dropout_p = 0.2;
    args.philox = {5, 6};
    return args;
  };
  auto empty = [&] { return TestTensor(MOLFUSE_F32, {nodes, 2, 16}); };
  Operator forward = {"molfuse_graph_attention_forward", {query, key, value, row_ptr, source}, {empty(), TestTensor(MOLFUSE_F32, {nodes, 2})},
                      [=](const Views& in, const Views& out, const molfuse_execution* execution) {
                        auto args = arguments(in);
                        args.out = out[0];
                        args.lse = out[1];
                        return molfuse_graph_attention_forward(&args, execution);
                      }};
  EXPECT_EQ(forward.call(here()), MOLFUSE_OK) << molfuse_last_error();
  const TestTensor lse = forward.outputs[1];
  list.push_back(std::move(forward));
  list.push_back({"molfuse_graph_attention_backward", {query, key, value, row_ptr, source, row_ptr_t, target, edge_id, lse, grad_out},
                  {empty(), empty(), empty()},
                  [=](const Views& in, const Views& out, const molfuse_execution* execution) {
                    auto args = arguments(in);
                    args.graph.row_ptr_t = in[5];
                    args.graph.target = in[6];
                    args.graph.edge_id = in[7];
                    args.lse = in[8];
                    args.grad_out = in[9];
                    args.grad_query = out[0];
                    args.grad_key = out[1];
                    args.grad_value = out[2];
                    return molfuse_graph_attention_backward(&args, execution);
                  }});
}

inline void add_vae_loss(std::vector<Operator>& list, Random& random) {
  const int64_t batch = 3, length = 9, classes = 40, latent = 8;
  const TestTensor logits = TestTensor::random(random, MOLFUSE_F32, {batch, length, classes});
  const TestTensor mean = TestTensor::random(random, MOLFUSE_F32, {batch, latent});
  const TestTensor log_var = TestTensor::random(random, MOLFUSE_F32, {batch, latent});
  TestTensor targets(MOLFUSE_I64, {batch, length});
  targets.fill([&](int64_t) { return static_cast<double>(between(random, 0, classes - 1)); });
  auto arguments = [](const Views& in) {
    auto args = zeroed<molfuse_vae_loss_args>();
    args.logits = in[0];
    args.targets = in[1];
    args.mean = in[2];
    args.log_var = in[3];
    args.beta = 0.5;
    args.reduction = MOLFUSE_REDUCTION_MEAN;
    return args;
  };
  auto tokens = [&] { return TestTensor(MOLFUSE_F32, {batch, length}); };
  auto samples = [&] { return TestTensor(MOLFUSE_F32, {batch, latent}); };
  Operator forward = {"molfuse_vae_loss_forward", {logits, targets, mean, log_var},
                      {TestTensor(MOLFUSE_F32, {MOLFUSE_VAE_STATS}), tokens(), tokens(), TestTensor(MOLFUSE_F32, {batch}),
                       TestTensor(MOLFUSE_F32, {batch, length, classes})},
                      [=](const Views& in, const Views& out, const molfuse_execution* execution) {
                        auto args = arguments(in);
                        args.stats = out[0];
                        args.row_lse = out[1];
                        args.nll = out[2];
                        args.kl_sample = out[3];
                        args.grad_logits = out[4];
                        return molfuse_vae_loss_forward(&args, execution);
                      }};
  EXPECT_EQ(forward.call(here()), MOLFUSE_OK) << molfuse_last_error();
  const TestTensor stats = forward.outputs[0], row_lse = forward.outputs[1];
  list.push_back(std::move(forward));
  list.push_back({"molfuse_vae_loss_backward",
                  {logits, targets, mean, log_var, stats, row_lse, TestTensor::of(MOLFUSE_F32, {MOLFUSE_VAE_STATS}, {1, 0.5, 0.25, 0, 0, 0})},
                  {TestTensor(MOLFUSE_F32, {batch, length, classes}), samples(), samples()},
                  [=](const Views& in, const Views& out, const molfuse_execution* execution) {
                    auto args = arguments(in);
                    args.stats = in[4];
                    args.row_lse = in[5];
                    args.grad_stats = in[6];
                    args.grad_logits = out[0];
                    args.grad_mean = out[1];
                    args.grad_log_var = out[2];
                    return molfuse_vae_loss_backward(&args, execution);
                  }});
}

inline void add_reparameterize(std::vector<Operator>& list, Random& random) {
  auto rows = [&] { return TestTensor::random(random, MOLFUSE_F32, {5, 24}); };
  auto empty = [] { return TestTensor(MOLFUSE_F32, {5, 24}); };
  auto arguments = [](const Views& in) {
    auto args = zeroed<molfuse_reparameterize_args>();
    args.mean = in[0];
    args.log_var = in[1];
    args.philox = {7, 8};
    return args;
  };
  list.push_back({"molfuse_reparameterize_forward", {rows(), rows()}, {empty()},
                  [=](const Views& in, const Views& out, const molfuse_execution* execution) {
                    auto args = arguments(in);
                    args.z = out[0];
                    return molfuse_reparameterize_forward(&args, execution);
                  }});
  list.push_back({"molfuse_reparameterize_backward", {rows(), rows(), rows()}, {empty(), empty()},
                  [=](const Views& in, const Views& out, const molfuse_execution* execution) {
                    auto args = arguments(in);
                    args.grad_z = in[2];
                    args.grad_mean = out[0];
                    args.grad_log_var = out[1];
                    return molfuse_reparameterize_backward(&args, execution);
                  }});
}

inline void add_encoder_epilogue(std::vector<Operator>& list, Random& random) {
  const int64_t nodes = 301, columns = 24, graphs = 3;
  auto rows = [&] { return TestTensor::random(random, MOLFUSE_F32, {nodes, columns}); };
  auto line = [&] { return TestTensor::random(random, MOLFUSE_F32, {columns}); };
  auto empty = [] { return TestTensor(MOLFUSE_F32, {nodes, columns}); };
  auto empty_line = [] { return TestTensor(MOLFUSE_F32, {columns}); };
  const TestTensor graph_ptr = TestTensor::of(MOLFUSE_I64, {graphs + 1}, {0, 200, 200, 301}), input = rows(), weight = line(), bias = line();
  auto arguments = [](const Views& in) {
    auto args = zeroed<molfuse_encoder_epilogue_args>();
    args.input = in[0];
    args.weight = in[1];
    args.bias = in[2];
    args.graph_ptr = in[3];
    args.training = 1;
    args.epsilon = 1e-5;
    args.dropout_p = 0.2;
    args.philox = {9, 10};
    return args;
  };
  Operator forward = {"molfuse_encoder_epilogue_forward", {input, weight, bias, graph_ptr, rows()},
                      {empty(), TestTensor(MOLFUSE_F32, {graphs, columns}), empty(), empty_line(), empty_line()},
                      [=](const Views& in, const Views& out, const molfuse_execution* execution) {
                        auto args = arguments(in);
                        args.residual = in[4];
                        args.out = out[0];
                        args.pooled = out[1];
                        args.sum = out[2];
                        args.save_mean = out[3];
                        args.save_rstd = out[4];
                        return molfuse_encoder_epilogue_forward(&args, execution);
                      }};
  EXPECT_EQ(forward.call(here()), MOLFUSE_OK) << molfuse_last_error();
  const TestTensor sum = forward.outputs[2], mean = forward.outputs[3], rstd = forward.outputs[4];
  list.push_back(std::move(forward));
  list.push_back({"molfuse_encoder_epilogue_backward",
                  {sum, weight, bias, graph_ptr, mean, rstd, rows(), TestTensor::random(random, MOLFUSE_F32, {graphs, columns})},
                  {empty(), empty_line(), empty_line()},
                  [=](const Views& in, const Views& out, const molfuse_execution* execution) {
                    auto args = arguments(in);
                    args.save_mean = in[4];
                    args.save_rstd = in[5];
                    args.grad_out = in[6];
                    args.grad_pooled = in[7];
                    args.grad_input = out[0];
                    args.grad_weight = out[1];
                    args.grad_bias = out[2];
                    return molfuse_encoder_epilogue_backward(&args, execution);
                  }});
}

constexpr int64_t kHeadSize = 16;  ///< of the problems of attention, which have no other size like it

inline void add_attention(std::vector<Operator>& list, Random& random) {
  const int64_t batch = 2, heads = 2, queries = 5, keys = 7;
  auto rows = [&](int64_t count) { return TestTensor::random(random, MOLFUSE_F32, {batch, heads, count, kHeadSize}); };
  auto empty = [](std::vector<int64_t> sizes) { return TestTensor(MOLFUSE_F32, std::move(sizes)); };
  const std::vector<int64_t> query_sizes = {batch, heads, queries, kHeadSize}, key_sizes = {batch, heads, keys, kHeadSize},
                             bias_sizes = {1, heads, queries, keys}, relative_sizes = {heads, 9};
  const TestTensor query = rows(queries), key = rows(keys), value = rows(keys), grad_out = rows(queries),
                   bias = TestTensor::random(random, MOLFUSE_F32, bias_sizes), relative = TestTensor::random(random, MOLFUSE_F32, relative_sizes),
                   lengths = TestTensor::of(MOLFUSE_I64, {batch}, {7, 4});
  auto arguments = [](const Views& in) {
    auto args = zeroed<molfuse_attention_args>();
    args.query = in[0];
    args.key = in[1];
    args.value = in[2];
    args.bias = in[3];
    args.relative_bias = in[4];
    args.key_lengths = in[5];
    args.causal = 1;
    args.dropout_p = 0.2;
    args.philox = {11, 12};
    return args;
  };
  Operator forward = {"molfuse_attention_forward", {query, key, value, bias, relative, lengths},
                      {empty(query_sizes), empty({batch, heads, queries})},
                      [=](const Views& in, const Views& out, const molfuse_execution* execution) {
                        auto args = arguments(in);
                        args.out = out[0];
                        args.lse = out[1];
                        return molfuse_attention_forward(&args, execution);
                      }};
  EXPECT_EQ(forward.call(here()), MOLFUSE_OK) << molfuse_last_error();
  const TestTensor made = forward.outputs[0], lse = forward.outputs[1];
  list.push_back(std::move(forward));
  list.push_back({"molfuse_attention_backward", {query, key, value, bias, relative, lengths, made, lse, grad_out},
                  {empty(query_sizes), empty(key_sizes), empty(key_sizes), empty(bias_sizes), empty(relative_sizes)},
                  [=](const Views& in, const Views& out, const molfuse_execution* execution) {
                    auto args = arguments(in);
                    args.out = in[6];
                    args.lse = in[7];
                    args.grad_out = in[8];
                    args.grad_query = out[0];
                    args.grad_key = out[1];
                    args.grad_value = out[2];
                    args.grad_bias = out[3];
                    args.grad_relative_bias = out[4];
                    return molfuse_attention_backward(&args, execution);
                  }});
}

inline void add_attention_decode(std::vector<Operator>& list, Random& random) {
  const int64_t batch = 3, heads = 2, capacity = 40;
  auto row = [&] { return TestTensor::random(random, MOLFUSE_F32, {batch, heads, kHeadSize}); };
  auto cache = [&] { return TestTensor::random(random, MOLFUSE_F32, {batch, heads, capacity, kHeadSize}); };
  list.push_back({"molfuse_attention_decode",
                  {row(), cache(), cache(), row(), row(), TestTensor::of(MOLFUSE_I64, {batch}, {0, 39, 20}),
                   TestTensor::random(random, MOLFUSE_F32, {heads, 9})},
                  {TestTensor(MOLFUSE_F32, {batch, heads, kHeadSize})},
                  [](const Views& in, const Views& out, const molfuse_execution* execution) {
                    auto args = zeroed<molfuse_attention_decode_args>();
                    args.query = in[0];
                    args.key_cache = in[1];
                    args.value_cache = in[2];
                    args.key_new = in[3];
                    args.value_new = in[4];
                    args.lengths = in[5];
                    args.relative_bias = in[6];
                    args.out = out[0];
                    return molfuse_attention_decode(&args, execution);
                  }});
}

inline void add_linear_vae_loss(std::vector<Operator>& list, Random& random) {
  const int64_t batch = 3, length = 9, channels = 20, classes = 40, latent = 8;
  auto numbers = [&](std::vector<int64_t> sizes) { return TestTensor::random(random, MOLFUSE_F32, std::move(sizes)); };
  auto empty = [](std::vector<int64_t> sizes) { return TestTensor(MOLFUSE_F32, std::move(sizes)); };
  const std::vector<int64_t> hidden_sizes = {batch, length, channels}, weight_sizes = {classes, channels}, latent_sizes = {batch, latent};
  const TestTensor hidden = numbers(hidden_sizes), weight = TestTensor::random(random, MOLFUSE_F32, weight_sizes, {}, 0, 0.3),
                   bias = numbers({classes}), mean = numbers(latent_sizes), log_var = numbers(latent_sizes);
  TestTensor targets(MOLFUSE_I64, {batch, length});
  targets.fill([&](int64_t) { return static_cast<double>(between(random, 0, classes - 1)); });
  auto arguments = [](const Views& in) {
    auto args = zeroed<molfuse_linear_vae_loss_args>();
    args.hidden = in[0];
    args.weight = in[1];
    args.weight_bias = in[2];
    args.targets = in[3];
    args.mean = in[4];
    args.log_var = in[5];
    args.beta = 0.5;
    args.reduction = MOLFUSE_REDUCTION_MEAN;
    return args;
  };
  Operator forward = {"molfuse_linear_vae_loss_forward", {hidden, weight, bias, targets, mean, log_var},
                      {empty({MOLFUSE_VAE_STATS}), empty({batch, length}), empty({batch, length}), empty({batch}), empty(hidden_sizes),
                       empty(weight_sizes), empty({classes})},
                      [=](const Views& in, const Views& out, const molfuse_execution* execution) {
                        auto args = arguments(in);
                        args.stats = out[0];
                        args.row_lse = out[1];
                        args.nll = out[2];
                        args.kl_sample = out[3];
                        args.grad_hidden = out[4];
                        args.grad_weight = out[5];
                        args.grad_weight_bias = out[6];
                        return molfuse_linear_vae_loss_forward(&args, execution);
                      }};
  EXPECT_EQ(forward.call(here()), MOLFUSE_OK) << molfuse_last_error();
  const TestTensor stats = forward.outputs[0], row_lse = forward.outputs[1];
  list.push_back(std::move(forward));
  const TestTensor grad_stats = TestTensor::of(MOLFUSE_F32, {MOLFUSE_VAE_STATS}, {1, 0.5, 0.25, 0, 0, 0});
  list.push_back({"molfuse_linear_vae_loss_backward", {hidden, weight, bias, targets, mean, log_var, stats, row_lse, grad_stats},
                  {empty(hidden_sizes), empty(weight_sizes), empty({classes}), empty(latent_sizes), empty(latent_sizes)},
                  [=](const Views& in, const Views& out, const molfuse_execution* execution) {
                    auto args = arguments(in);
                    args.stats = in[6];
                    args.row_lse = in[7];
                    args.grad_stats = in[8];
                    args.grad_hidden = out[0];
                    args.grad_weight = out[1];
                    args.grad_weight_bias = out[2];
                    args.grad_mean = out[3];
                    args.grad_log_var = out[4];
                    return molfuse_linear_vae_loss_backward(&args, execution);
                  }});
  list.push_back({"molfuse_vae_loss_scale", {numbers({50}), stats, grad_stats}, {empty({50})},
                  [](const Views& in, const Views& out, const molfuse_execution* execution) {
                    auto args = zeroed<molfuse_vae_loss_scale_args>();
                    args.gradient = in[0];
                    args.stats = in[1];
                    args.grad_stats = in[2];
                    args.out = out[0];
                    args.reduction = MOLFUSE_REDUCTION_MEAN;
                    args.input_dtype = MOLFUSE_F32;
                    return molfuse_vae_loss_scale(&args, execution);
                  }});
}

inline std::vector<Operator> every_operator() {
  Random random(19);
  std::vector<Operator> list;
  add_encoder_epilogue(list, random);
  add_latent_concat(list, random);
  add_graph_attention(list, random);
  add_vae_loss(list, random);
  add_reparameterize(list, random);
  add_attention(list, random);
  add_attention_decode(list, random);
  add_linear_vae_loss(list, random);
  return list;
}

}  // namespace molfuse_test
