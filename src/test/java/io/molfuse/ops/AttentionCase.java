// SPDX-License-Identifier: Apache-2.0
package io.molfuse.ops;

import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch.ScalarType;

/** One attention problem, run through the operator and through the formula. Everything not set is absent. */
final class AttentionCase {
  /** How query, key and value lie in memory. */
  enum Layout {
    CONTIGUOUS,
    /** [B,N,H,D] memory seen as [B,H,N,D]. */
    HEADS_INSIDE,
    /** Every second column of wider rows, so that rows are not contiguous. */
    STRIDED_ROWS,
    /** A window of longer sequences. */
    WINDOW,
    /** One batch entry expanded to all, stride 0. */
    EXPANDED_BATCH
  }

  final long b;
  final long h;
  final long n;
  final long m;
  final long d;
  Layout layout = Layout.CONTIGUOUS;
  long[] biasShape;
  long relativeReach = -1;
  long[] keyLengths;
  boolean causal;
  Double scale;
  double dropoutP;
  long seed = 1;
  long offset;
  long dataSeed = 5;

  AttentionCase(long b, long h, long n, long m, long d) {
    this.b = b;
    this.h = h;
    this.n = n;
    this.m = m;
    this.d = d;
  }

  AttentionCase layout(Layout layout) {
    this.layout = layout;
    return this;
  }

  AttentionCase bias(long... shape) {
    biasShape = shape;
    return this;
  }

  AttentionCase relative(long reach) {
    relativeReach = reach;
    return this;
  }

  AttentionCase keyLengths(long... lengths) {
    keyLengths = lengths;
    return this;
  }

  AttentionCase causal() {
    causal = true;
    return this;
  }

  AttentionCase scale(double scale) {
    this.scale = scale;
    return this;
  }

  AttentionCase dropout(double p, long seed, long offset) {
    this.dropoutP = p;
    this.seed = seed;
    this.offset = offset;
    return this;
  }

  AttentionCase dataSeed(long seed) {
    dataSeed = seed;
    return this;
  }

  void check(ScalarType type) {
    Tensor[] inputs = inputs(type);
    // A bias's gradient adds up differences of two sums of d products, each with its own rounding, which may cancel to zero.
    double[] extra = new double[inputs.length];
    for (int i = 3; i < inputs.length; i++) {
      double terms = (double) b * h * n * m / inputs[i].numel();
      extra[i] = Tensors.epsilon(type == ScalarType.Double ? type : ScalarType.Float) * Math.sqrt(d * Math.max(1, terms));
    }
    Acceptance.check(this::fused, this::formula, type, extra, inputs);
  }

  void checkFiniteDifferences() {
    Acceptance.checkFiniteDifferences(this::fused, inputs(ScalarType.Double));
  }

  Tensor[] inputs(ScalarType type) {
    Random random = new Random(dataSeed);
    List<Tensor> inputs = new ArrayList<>();
    for (long length : new long[] {n, m, m}) {
      inputs.add(Tensors.normal(random, type, memoryShape(length)));
    }
    if (biasShape != null) {
      inputs.add(Tensors.normal(random, type, biasShape));
    }
    if (relativeReach >= 0) {
      inputs.add(Tensors.normal(random, type, h, 2 * relativeReach + 1));
    }
    return inputs.toArray(new Tensor[0]);
  }

  Tensor[] fused(Tensor[] inputs) {
    return new Tensor[] {Attention.apply(view(inputs[0], n), view(inputs[1], m), view(inputs[2], m), options(inputs))};
  }

  Attention.Options options(Tensor[] inputs) {
    Attention.Options options = Attention.options().causal(causal);
    if (biasShape != null) {
      options.bias(inputs[3]);
    }
    if (relativeReach >= 0) {
      options.relativeBias(inputs[inputs.length - 1]);
    }
    if (keyLengths != null) {
      options.keyLengths(Tensors.beside(inputs[0], Tensors.longs(keyLengths)));
    }
    if (scale != null) {
      options.scale(scale);
    }
    if (dropoutP > 0) {
      options.dropout(dropoutP, seed, offset);
    }
    return options;
  }

  Tensor[] formula(Tensor[] inputs) {
    return new Tensor[] {
      Formulas.attention(
          view(inputs[0], n),
          view(inputs[1], m),
          view(inputs[2], m),
          biasShape == null ? null : inputs[3],
          relativeReach < 0 ? null : inputs[inputs.length - 1],
          Formulas.visible(b, n, m, causal, keyLengths),
          scale == null ? 1 / Math.sqrt(d) : scale,
          new Formulas.Keep(dropoutP, seed, offset))
    };
  }

  private long[] memoryShape(long length) {
    return switch (layout) {
      case CONTIGUOUS -> new long[] {b, h, length, d};
      case HEADS_INSIDE -> new long[] {b, length, h, d};
      case STRIDED_ROWS -> new long[] {b, h, length, d, 2};
      case WINDOW -> new long[] {b, h, length + 3, d};
      case EXPANDED_BATCH -> new long[] {1, h, length, d};
    };
  }

  Tensor view(Tensor memory, long length) {
    return switch (layout) {
      case CONTIGUOUS -> memory;
      case HEADS_INSIDE -> memory.transpose(1, 2);
      case STRIDED_ROWS -> memory.select(4, 1);
      case WINDOW -> memory.narrow(2, 2, length);
      case EXPANDED_BATCH -> memory.expand(b, h, length, d);
    };
  }
}
