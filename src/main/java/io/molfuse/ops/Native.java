// SPDX-License-Identifier: Apache-2.0
package io.molfuse.ops;

import io.molfuse.presets.MolfuseNative;
import io.molfuse.presets.RecomputeCallback;
import java.util.List;
import java.util.function.Supplier;
import org.bytedeco.javacpp.BytePointer;
import org.bytedeco.pytorch.Device;
import org.bytedeco.pytorch.DoubleOptional;
import org.bytedeco.pytorch.LongOptional;
import org.bytedeco.pytorch.LongVector;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptional;
import org.bytedeco.pytorch.TensorOptions;
import org.bytedeco.pytorch.TensorVector;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch.ScalarType;

/**
 * The calls into the bindings: closes the wrappers a call needs before it returns, so that nothing of them waits for a scope
 * or the garbage collector, and turns native failures into this package's exceptions.
 */
final class Native {
  private static final String INVALID_ARGUMENT = "molfuse: invalid argument: ";
  private static final String PREFIX = "molfuse: ";

  private Native() {}

  static void load() {
    version();
  }

  static String version() {
    return string(MolfuseNative::version);
  }

  static String info() {
    return string(MolfuseNative::info);
  }

  static String deviceInfo(int device) {
    return string(() -> MolfuseNative.device_info(device));
  }

  static void setCpuLevel(String level) {
    run(() -> MolfuseNative.set_cpu_level(level));
  }

  static void setAttentionBackend(String backend) {
    run(() -> MolfuseNative.set_attention_backend(backend));
  }

  static String deviceMemory(int device) {
    return string(() -> MolfuseNative.device_memory(device));
  }

  static void resetPeakMemory(int device) {
    run(() -> MolfuseNative.reset_peak_memory(device));
  }

  static void emptyDeviceCache(int device) {
    run(() -> MolfuseNative.empty_device_cache(device));
  }

  static long deviceUtilization(int device) {
    return call(() -> MolfuseNative.device_utilization(device));
  }

  static Tensor generatorState(int device) {
    return call(() -> MolfuseNative.generator_state(device));
  }

  static void setGeneratorState(int device, Tensor state) {
    run(() -> MolfuseNative.set_generator_state(device, state));
  }

  static Tensor attention(Tensor query, Tensor key, Tensor value, Attention.Options o) {
    return call(
        () -> {
          try (TensorOptional bias = optional(o.bias);
              TensorOptional relativeBias = optional(o.relativeBias);
              TensorOptional keyLengths = optional(o.keyLengths);
              DoubleOptional scale = optional(o.scale);
              LongOptional seed = optional(o.dropout.seed)) {
            return MolfuseNative.attention(
                query, key, value, bias, relativeBias, keyLengths, o.causal, scale, o.dropout.p, seed, o.dropout.offset);
          }
        });
  }

  static Tensor attentionVarlen(
      Tensor query, Tensor key, Tensor value, Tensor cuQ, Tensor cuK, long maxQ, long maxK, Attention.Options o) {
    return call(
        () -> {
          try (TensorOptional relativeBias = optional(o.relativeBias);
              DoubleOptional scale = optional(o.scale);
              LongOptional seed = optional(o.dropout.seed)) {
            return MolfuseNative.attention_varlen(
                query, key, value, cuQ, cuK, maxQ, maxK, relativeBias, o.causal, scale, o.dropout.p, seed,
                o.dropout.offset);
          }
        });
  }

  static Tensor attentionDecode(
      Tensor query, Tensor keyCache, Tensor valueCache, Tensor lengths, Attention.DecodeOptions o) {
    return call(
        () -> {
          try (TensorOptional keyNew = optional(o.keyNew);
              TensorOptional valueNew = optional(o.valueNew);
              TensorOptional relativeBias = optional(o.relativeBias);
              DoubleOptional scale = optional(o.scale)) {
            return MolfuseNative.attention_decode(
                query, keyCache, valueCache, lengths, keyNew, valueNew, relativeBias, scale);
          }
        });
  }

  static Tensor[] graphFromEdges(Tensor source, Tensor target, long numNodes) {
    return call(() -> unpack(MolfuseNative.graph_from_edges(source, target, numNodes)));
  }

  static Tensor[] graphTranspose(Tensor rowPtr, Tensor source) {
    return call(() -> unpack(MolfuseNative.graph_transpose(rowPtr, source)));
  }

  static Tensor graphAttention(Tensor query, Tensor key, Tensor value, Graph graph, GraphAttention.Options o) {
    return call(
        () -> {
          try (DoubleOptional scale = optional(o.scale);
              LongOptional seed = optional(o.dropout.seed)) {
            return MolfuseNative.graph_attention(
                query, key, value, graph.rowPtr(), graph.source(), graph.rowPtrT(), graph.target(), graph.edgeId(),
                scale, o.dropout.p, seed, o.dropout.offset);
          }
        });
  }

  static Tensor[] vaeLoss(Tensor logits, Tensor targets, Tensor mean, Tensor logVar, VaeLoss.Options o) {
    return call(
        () -> {
          try (TensorOptional m = optional(mean);
              TensorOptional v = optional(logVar)) {
            return unpack(
                MolfuseNative.vae_loss(
                    logits, targets, m, v, o.beta, o.padIndex, o.reduction.word, o.classSecond, o.inPlaceBackward));
          }
        });
  }

  static Tensor[] linearVaeLoss(
      Tensor hidden,
      Tensor weight,
      Tensor weightBias,
      Tensor targets,
      Tensor mean,
      Tensor logVar,
      VaeLoss.Options o) {
    return call(
        () -> {
          try (TensorOptional bias = optional(weightBias);
              TensorOptional m = optional(mean);
              TensorOptional v = optional(logVar)) {
            return unpack(
                MolfuseNative.linear_vae_loss(
                    hidden, weight, bias, targets, m, v, o.beta, o.padIndex, o.reduction.word));
          }
        });
  }

  static Tensor latentConcat(TensorVector layers, Tensor graphPtr) {
    return call(() -> MolfuseNative.latent_concat(layers, graphPtr));
  }

  static Tensor latentConcatInto(Tensor out, long columnOffset, Tensor nodes, Tensor graphPtr) {
    return call(() -> MolfuseNative.latent_concat_into(out, columnOffset, nodes, graphPtr));
  }

  static Tensor latentConcatPooled(TensorVector pooled) {
    return call(() -> MolfuseNative.latent_concat_pooled(pooled));
  }

  static Tensor encoderEpilogue(Tensor input, EncoderEpilogue.Options o) {
    return call(
        () -> {
          try (TensorOptional residual = optional(o.residual);
              TensorOptional weight = optional(o.weight);
              TensorOptional bias = optional(o.bias);
              TensorOptional mean = optional(o.runningMean);
              TensorOptional variance = optional(o.runningVar);
              LongOptional seed = optional(o.dropout.seed)) {
            return MolfuseNative.encoder_epilogue(
                input, residual, weight, bias, mean, variance, o.training, o.momentum, o.epsilon, o.dropout.p, seed,
                o.dropout.offset);
          }
        });
  }

  static Tensor[] encoderEpilogueInto(
      Tensor pooled, long columnOffset, Tensor graphPtr, Tensor input, EncoderEpilogue.Options o) {
    return call(
        () -> {
          try (TensorOptional residual = optional(o.residual);
              TensorOptional weight = optional(o.weight);
              TensorOptional bias = optional(o.bias);
              TensorOptional mean = optional(o.runningMean);
              TensorOptional variance = optional(o.runningVar);
              LongOptional seed = optional(o.dropout.seed)) {
            return unpack(
                MolfuseNative.encoder_epilogue_into(
                    pooled, columnOffset, graphPtr, input, residual, weight, bias, mean, variance, o.training,
                    o.momentum, o.epsilon, o.dropout.p, seed, o.dropout.offset));
          }
        });
  }

  static Tensor reparameterize(Tensor mean, Tensor logVar, Long seed, long offset) {
    return call(
        () -> {
          try (LongOptional s = optional(seed)) {
            return MolfuseNative.reparameterize(mean, logVar, s, offset);
          }
        });
  }

  static void unscale(TensorVector grads, Tensor foundInf, Tensor invScale) {
    run(() -> MolfuseNative.amp_unscale_(grads, foundInf, invScale));
  }

  static void updateScale(
      Tensor scale, Tensor growthTracker, Tensor foundInf, double growth, double backoff, long interval) {
    run(() -> MolfuseNative.amp_update_scale_(scale, growthTracker, foundInf, growth, backoff, interval));
  }

  static void fusedAdamW(
      TensorVector params,
      TensorVector grads,
      TensorVector expAvgs,
      TensorVector expAvgSqs,
      TensorVector maxExpAvgSqs,
      TensorVector stateSteps,
      StepOps.AdamW o) {
    run(
        () -> {
          try (TensorOptional gradScale = optional(o.gradScale);
              TensorOptional foundInf = optional(o.foundInf);
              TensorVector none = maxExpAvgSqs == null ? new TensorVector() : null) {
            MolfuseNative.fused_adamw_(
                params, grads, expAvgs, expAvgSqs, maxExpAvgSqs == null ? none : maxExpAvgSqs, stateSteps,
                o.learningRate, o.beta1, o.beta2, o.weightDecay, o.epsilon, maxExpAvgSqs != null, o.maximize, gradScale,
                foundInf);
          }
        });
  }

  static Tensor clipGradNorm(TensorVector grads, double maxNorm, double normType) {
    return call(() -> MolfuseNative.clip_grad_norm_(grads, maxNorm, normType));
  }

  /** New handles of the outputs, with a node whose backward is {@link Recomputation#run}. */
  static Tensor[] checkpointOutputs(TensorVector inputs, TensorVector outputs, long segment) {
    return call(() -> unpack(MolfuseNative.checkpoint_outputs(inputs, outputs, segment, Callback.INSTANCE)));
  }

  static long[] releasedSegments() {
    return call(
        () -> {
          try (LongVector segments = MolfuseNative.released_segments()) {
            return segments.get();
          }
        });
  }

  static void countHostReads(boolean on) {
    run(() -> MolfuseNative.count_host_reads(on));
  }

  static long hostReads() {
    return call(MolfuseNative::host_reads);
  }

  /** One function for all segments, since JavaCPP has room for few. */
  private static final class Callback extends RecomputeCallback {
    static final Callback INSTANCE = new Callback();

    private Callback() {
      // The scope that happens to be open at the first use must not take it along.
      retainReference();
    }

    @Override
    public void call(long segment, TensorVector inputs, TensorVector gradOutputs, TensorVector gradInputs) {
      Recomputation.run(segment, inputs, gradOutputs, gradInputs);
    }
  }

  /** A vector the caller closes; a null entry becomes an undefined tensor. */
  static TensorVector vector(List<Tensor> tensors) {
    return call(
        () -> {
          TensorVector vector = new TensorVector(tensors.size());
          try {
            for (int i = 0; i < tensors.size(); i++) {
              if (tensors.get(i) != null) {
                vector.put(i, tensors.get(i));
              }
            }
          } catch (RuntimeException | Error e) {
            vector.close();
            throw e;
          }
          return vector;
        });
  }

  /** int32 on the CPU. */
  static Tensor intTensor(int[] values) {
    return call(
        () -> {
          try (TensorOptions options = new TensorOptions(ScalarType.Int)) {
            Tensor tensor = torch.empty(new long[] {values.length}, options, null);
            if (values.length > 0) {
              tensor.data_ptr_int().put(values);
            }
            return tensor;
          }
        });
  }

  /** float32 [1] zero on the same device. */
  static Tensor zeroLike(Tensor scalar) {
    return call(
        () -> {
          try (TensorOptions options = scalar.options()) {
            return torch.zeros(new long[] {1}, options);
          }
        });
  }

  static Tensor to(Tensor tensor, Device device) {
    return call(() -> tensor.to(device, Checks.type(tensor)));
  }

  static void close(Tensor... tensors) {
    for (Tensor tensor : tensors) {
      if (tensor != null) {
        tensor.close();
      }
    }
  }

  /** Owned copies of the handles in a vector, which is closed: what get() returns points into the vector. */
  private static Tensor[] unpack(TensorVector vector) {
    try (vector) {
      Tensor[] tensors = new Tensor[Math.toIntExact(vector.size())];
      for (int i = 0; i < tensors.length; i++) {
        tensors[i] = new Tensor(vector.get(i));
      }
      return tensors;
    }
  }

  private static TensorOptional optional(Tensor tensor) {
    return tensor == null ? new TensorOptional() : new TensorOptional(tensor);
  }

  private static DoubleOptional optional(Double value) {
    return value == null ? new DoubleOptional() : new DoubleOptional(value);
  }

  private static LongOptional optional(Long value) {
    return value == null ? new LongOptional() : new LongOptional(value);
  }

  private static String string(Supplier<BytePointer> function) {
    return call(
        () -> {
          try (BytePointer text = function.get()) {
            return text.getString();
          }
        });
  }

  private static void run(Runnable function) {
    call(
        () -> {
          function.run();
          return null;
        });
  }

  private static <T> T call(Supplier<T> function) {
    try {
      return function.get();
    } catch (MolfuseException | IllegalArgumentException e) {
      throw e;
    } catch (RuntimeException e) {
      throw translated(e);
    } catch (LinkageError e) {
      throw unloadable(e);
    }
  }

  static RuntimeException translated(RuntimeException failure) {
    String text = MolfuseException.reason(failure);
    if (text.startsWith(INVALID_ARGUMENT)) {
      return new IllegalArgumentException(text.substring(INVALID_ARGUMENT.length()));
    }
    return new MolfuseException(text.startsWith(PREFIX) ? text.substring(PREFIX.length()) : text, failure);
  }

  private static MolfuseException unloadable(LinkageError failure) {
    Throwable root = failure;
    while (root.getCause() != null) {
      root = root.getCause();
    }
    return new MolfuseException(
        "the native libraries of molfuse cannot be loaded on "
            + System.getProperty("os.name") + "-" + System.getProperty("os.arch")
            + " (built for linux-x86_64 beside org.bytedeco:pytorch with that classifier on the class path): "
            + root.getMessage(),
        failure);
  }
}
