// SPDX-License-Identifier: Apache-2.0
// What holds for every operator, whatever it computes: views that only few callers make.
#include <thread>

#include "operators.h"

using namespace molfuse_test;

namespace {

/// The same values in other memory: there, dimension `backwards` (-1: none) runs from the end to the beginning, and all of it begins one
/// element after an address that a vector could be read from.
struct Moved {
  TestTensor memory;
  molfuse_tensor view;

  Moved(TestTensor& tensor, int backwards) : memory(tensor.dtype(), {tensor.count() + 1}), view(tensor.view()) {
    const auto& sizes = tensor.sizes();
    const int64_t element = static_cast<int64_t>(molfuse_dtype_size(tensor.dtype()));
    int64_t first = 1, step = 1;
    for (size_t d = sizes.size(); d-- > 0;) {
      const bool turned = static_cast<int>(d) == backwards;
      view.stride[d] = turned ? -step : step;
      if (turned) first += (sizes[d] - 1) * step;
      step *= sizes[d];
    }
    view.data = static_cast<char*>(memory.view().data) + first * element;
    for (int64_t n = 0; n < tensor.count(); ++n) memory.set(place(n, sizes, first), tensor[n]);
    positions.resize(static_cast<size_t>(tensor.count()));
    for (int64_t n = 0; n < tensor.count(); ++n) positions[static_cast<size_t>(n)] = place(n, sizes, first);
  }
  std::vector<double> values() const {
    std::vector<double> list;
    for (const int64_t at : positions) list.push_back(memory[at]);
    return list;
  }

 private:
  std::vector<int64_t> positions;
  int64_t place(int64_t n, const std::vector<int64_t>& sizes, int64_t first) const {
    int64_t at = first;
    for (size_t d = sizes.size(); d-- > 0;) {
      at += n % sizes[d] * view.stride[d];
      n /= sizes[d];
    }
    return at;
  }
};

/// Whether a tensor is refused because its last dimension runs backwards, and then expects that the call says so.
bool refused(const Operator& op, const molfuse_tensor& view, const std::function<molfuse_status()>& call) {
  const int last = view.ndim - 1;
  if (view.stride[last] != -1) return false;
  const auto is_of = [&](const char* name) { return op.function.find(name) != std::string::npos; };
  if ((is_of("encoder_epilogue") && view.ndim == 2) || (is_of("vae_loss_scale") && view.size[last] != MOLFUSE_VAE_STATS)) {
    expect_status(call(), MOLFUSE_UNSUPPORTED, {"side by side", "stride -1"});
    return true;
  }
  if (is_of("molfuse_attention") && view.size[last] == kHeadSize) {
    expect_invalid(call(), {"expected stride 1 in the last dimension, got -1"});
    return true;
  }
  return false;
}

// Vectors and single elements round differently; nothing here is larger than 10.
constexpr double kRounding = 1e-5;

TEST(EveryOperator, TakesInputsThatRunBackwardsOrBeginAnywhere) {
  for (Operator& op : every_operator()) {
    ASSERT_EQ(op.call(here()), MOLFUSE_OK) << op.function << ": " << molfuse_last_error();
    const std::vector<double> expected = op.results();
    for (size_t which = 0; which < op.inputs.size(); ++which) {
      for (int backwards = -1; backwards < static_cast<int>(op.inputs[which].sizes().size()); ++backwards) {
        SCOPED_TRACE(op.function + " input " + std::to_string(which) + " dimension " + std::to_string(backwards));
        Moved moved(op.inputs[which], backwards);
        Views in = op.input_views();
        in[which] = moved.view;
        for (TestTensor& output : op.outputs) output.fill([](int64_t) { return 77.0; });
        if (kOnDevice && backwards == 0 && op.function.find("graph_attention") != std::string::npos && in[which].dtype == MOLFUSE_I64) {
          expect_invalid(op.run(in, op.output_views(), here()), {"expected contiguous entries on a device, got stride -1"});
          continue;
        }
        if (refused(op, in[which], [&] { return op.run(in, op.output_views(), here()); })) continue;
        ASSERT_EQ(op.run(in, op.output_views(), here()), MOLFUSE_OK) << molfuse_last_error();
        EXPECT_LE(max_difference(op.results(), expected), kRounding);
      }
    }
  }
}

TEST(EveryOperator, WritesOutputsThatRunBackwardsOrBeginAnywhere) {
  for (Operator& op : every_operator()) {
    ASSERT_EQ(op.call(here()), MOLFUSE_OK) << op.function << ": " << molfuse_last_error();
    for (size_t which = 0; which < op.outputs.size(); ++which) {
      const std::vector<double> expected = op.outputs[which].values();
      for (int backwards = -1; backwards < static_cast<int>(op.outputs[which].sizes().size()); ++backwards) {
        SCOPED_TRACE(op.function + " output " + std::to_string(which) + " dimension " + std::to_string(backwards));
        TestTensor untouched = op.outputs[which];
        untouched.fill([](int64_t) { return 77.0; });
        Moved moved(untouched, backwards);
        Views out = op.output_views();
        out[which] = moved.view;
        if (refused(op, out[which], [&] { return op.run(op.input_views(), out, here()); })) continue;
        ASSERT_EQ(op.run(op.input_views(), out, here()), MOLFUSE_OK) << molfuse_last_error();
        EXPECT_LE(max_difference(moved.values(), expected), kRounding);
        EXPECT_TRUE(std::isnan(moved.memory[0]));  // what lies before the first element
      }
    }
  }
}

TEST(EveryOperator, RefusesMemoryThatIsNotAlignedToItsElements) {
  for (Operator& op : every_operator()) {
    for (size_t which = 0; which < op.inputs.size() + op.outputs.size(); ++which) {
      SCOPED_TRACE(op.function + " tensor " + std::to_string(which));
      Views in = op.input_views(), out = op.output_views();
      molfuse_tensor& spoilt = which < in.size() ? in[which] : out[which - in.size()];
      spoilt.data = static_cast<char*>(spoilt.data) + 2;
      expect_invalid(op.run(in, out, here()), {"aligned to its elements"});
    }
  }
}

TEST(EveryOperator, RefusesHalfAnAllocator) {
  for (Operator& op : every_operator()) {
    molfuse_execution execution = *here();
    execution.allocate = [](void*, size_t) -> void* { return nullptr; };
    expect_invalid(op.call(&execution), {op.function.c_str(), "execution->release is NULL"});
  }
}

TEST(EveryOperator, RefusesOutputsWhoseElementsOverlap) {
  for (Operator& op : every_operator()) {
    for (size_t which = 0; which < op.outputs.size(); ++which) {
      const std::vector<int64_t>& sizes = op.outputs[which].sizes();
      if (sizes.size() < 2 || sizes[0] < 2 || sizes[1] < 2) continue;
      SCOPED_TRACE(op.function + " output " + std::to_string(which));
      Views out = op.output_views();
      out[which].stride[0] = out[which].stride[1];
      expect_invalid(op.run(op.input_views(), out, here()), {"may not overlap"});
    }
  }
}

TEST(EveryOperator, RefusesOutputsInTheMemoryOfIndices) {
  for (Operator& op : every_operator()) {
    for (size_t which = 0; which < op.inputs.size(); ++which) {
      if (op.inputs[which].dtype() != MOLFUSE_I64) continue;
      for (size_t written = 0; written < op.outputs.size(); ++written) {
        SCOPED_TRACE(op.function + " input " + std::to_string(which) + " output " + std::to_string(written));
        Views in = op.input_views();
        const Views out = op.output_views();
        // The values stay right: they are copied to where the output is.
        TestTensor roomy(MOLFUSE_I64, {op.inputs[which].count() + op.outputs[written].count()});
        for (int64_t n = 0; n < op.inputs[which].count(); ++n) roomy.set(n, op.inputs[which][n]);
        Views moved = out;
        in[which].data = moved[written].data = roomy.view().data;
        expect_invalid(op.run(in, moved, here()), {"overlaps that of"});
      }
    }
  }
}

TEST(EveryOperator, GivesEightThreadsWhatItGivesOne) {
  MOLFUSE_CPU_ONLY();
  const auto outputs_of = [](const Operator& op) {
    std::vector<std::vector<unsigned char>> all;
    for (const TestTensor& output : op.outputs) all.push_back(output.bytes());
    return all;
  };
  // By OpenMP threads: what they are asked for may decide in which order sums are made.
  constexpr int kSettings = 3;
  std::vector<std::vector<std::vector<unsigned char>>> expected[kSettings];
  for (int setting = 0; setting < kSettings; ++setting) {
    const Execution execution(setting);
    for (Operator& op : every_operator()) {
      ASSERT_EQ(op.call(&execution), MOLFUSE_OK) << op.function << ": " << molfuse_last_error();
      expected[setting].push_back(outputs_of(op));
    }
  }
  constexpr int kThreads = 8, kRounds = kSanitized ? 3 : 20;
  std::vector<std::vector<Operator>> own;
  for (int n = 0; n < kThreads; ++n) own.push_back(every_operator());
  std::vector<std::string> wrong(kThreads);
  std::vector<std::thread> threads;
  for (int n = 0; n < kThreads; ++n) {
    threads.emplace_back([&, n] {
      std::string& text = wrong[static_cast<size_t>(n)];
      for (int round = 0; round < kRounds && text.empty(); ++round) {
        for (size_t k = 0; k < expected[0].size(); ++k) {
          // Each thread at another operator, with another number of threads of its own, and an error of its own after each call.
          const size_t which = (k + static_cast<size_t>(5 * n)) % expected[0].size();
          Operator& op = own[static_cast<size_t>(n)][which];
          const Execution execution(n % kSettings);
          for (TestTensor& output : op.outputs) output.fill([](int64_t) { return 0.0; });
          if (op.call(&execution) != MOLFUSE_OK) {
            text = op.function + ": " + molfuse_last_error();
          } else if (outputs_of(op) != expected[n % kSettings][which]) {
            text = op.function + ": another result";
          }
          const std::string level = "of thread " + std::to_string(n);
          if (molfuse_set_cpu_level(level.c_str()) != MOLFUSE_INVALID_ARGUMENT || std::string(molfuse_last_error()).find(level) == std::string::npos) {
            text = "the text of another thread's error: " + std::string(molfuse_last_error());
          }
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::string& text : wrong) EXPECT_EQ(text, "");
}

}  // namespace
