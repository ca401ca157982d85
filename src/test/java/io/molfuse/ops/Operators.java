// SPDX-License-Identifier: Apache-2.0
package io.molfuse.ops;

import java.util.List;
import java.util.Random;
import java.util.stream.Stream;
import org.bytedeco.pytorch.Device;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptions;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch.ScalarType;

/** One problem for every differentiable operator: for the tests that all of them must pass. */
enum Operators implements Acceptance.Formula {
  ATTENTION {
    @Override
    Tensor[] inputs(ScalarType type) {
      return new AttentionCase(3, 2, 21, 27, 24).bias(1, 2, 21, 27).relative(4).inputs(type);
    }

    @Override
    public Tensor[] apply(Tensor[] in) {
      return new AttentionCase(3, 2, 21, 27, 24).bias(1, 2, 21, 27).relative(4).keyLengths(27, 0, 13).dropout(0.2, 5, 1).fused(in);
    }
  },
  ATTENTION_SHORT {
    @Override
    Tensor[] inputs(ScalarType type) {
      return new AttentionCase(17, 4, 4, 4, 16).inputs(type);
    }

    @Override
    public Tensor[] apply(Tensor[] in) {
      return new AttentionCase(17, 4, 4, 4, 16).fused(in);
    }
  },
  ATTENTION_VARLEN {
    @Override
    Tensor[] inputs(ScalarType type) {
      return normals(type, new long[] {20, 2, 16}, new long[] {20, 2, 16}, new long[] {20, 2, 16}, new long[] {2, 9});
    }

    @Override
    public Tensor[] apply(Tensor[] in) {
      Tensor cu = Tensors.beside(in[0], Tensors.ints(0, 7, 7, 19, 20));
      return new Tensor[] {
        Attention.varlen(in[0], in[1], in[2], cu, cu, 12, 12, Attention.options().causal(true).relativeBias(in[3]))
      };
    }
  },
  GRAPH_ATTENTION {
    @Override
    Tensor[] inputs(ScalarType type) {
      return normals(type, new long[] {30, 3, 20}, new long[] {30, 3, 20}, new long[] {30, 3, 20});
    }

    @Override
    public Tensor[] apply(Tensor[] in) {
      try (Graph built = Graphs.random(new Random(1), 30, 90).build();
          Graph graph = built.to(in[0].is_cuda() ? in[0].device() : new Device("cpu"))) {
        return new Tensor[] {GraphAttention.apply(in[0], in[1], in[2], graph, 0.2, 6)};
      }
    }
  },
  VAE_LOSS {
    @Override
    Tensor[] inputs(ScalarType type) {
      return new VaeLossCase(4, 9, 23, 6).inputs(type);
    }

    @Override
    public Tensor[] apply(Tensor[] in) {
      return new VaeLossCase(4, 9, 23, 6).fused(in);
    }
  },
  VAE_LOSS_UNREDUCED {
    @Override
    Tensor[] inputs(ScalarType type) {
      return new VaeLossCase(4, 9, 23, 6).classSecond().inputs(type);
    }

    @Override
    public Tensor[] apply(Tensor[] in) {
      return new VaeLossCase(4, 9, 23, 6).classSecond().reduction(VaeLoss.Reduction.NONE).fused(in);
    }
  },
  LINEAR_VAE_LOSS {
    @Override
    Tensor[] inputs(ScalarType type) {
      return normals(type, new long[] {4, 9, 20}, new long[] {23, 20}, new long[] {23}, new long[] {4, 6}, new long[] {4, 6});
    }

    @Override
    public Tensor[] apply(Tensor[] in) {
      Tensor targets = Tensors.beside(in[0], new VaeLossCase(4, 9, 23, 6).targets());
      return VaeLossCase.outputs(
          VaeLoss.linear(in[0], in[1], in[2], targets, in[3], in[4], VaeLoss.options()), VaeLoss.Reduction.MEAN);
    }
  },
  LATENT_CONCAT {
    @Override
    Tensor[] inputs(ScalarType type) {
      return normals(type, new long[] {25, 12}, new long[] {25, 12}, new long[] {25, 7});
    }

    @Override
    public Tensor[] apply(Tensor[] in) {
      return new Tensor[] {LatentConcat.apply(List.of(in), Tensors.beside(in[0], Tensors.longs(0, 5, 5, 25)))};
    }
  },
  LATENT_CONCAT_INTO {
    @Override
    Tensor[] inputs(ScalarType type) {
      return normals(type, new long[] {25, 12}, new long[] {25, 7});
    }

    @Override
    public Tensor[] apply(Tensor[] in) {
      Tensor out = Tensors.beside(in[0], torch.empty(new long[] {3, 19}, new TensorOptions(Checks.type(in[0])), null));
      Tensor graphPtr = Tensors.beside(in[0], Tensors.longs(0, 5, 5, 25));
      out = LatentConcat.into(out, 0, in[0], graphPtr);
      return new Tensor[] {LatentConcat.into(out, 12, in[1], graphPtr)};
    }
  },
  LATENT_CONCAT_POOLED {
    @Override
    Tensor[] inputs(ScalarType type) {
      return normals(type, new long[] {5, 12}, new long[] {5, 3});
    }

    @Override
    public Tensor[] apply(Tensor[] in) {
      return new Tensor[] {LatentConcat.pooled(List.of(in))};
    }
  },
  ENCODER_EPILOGUE {
    @Override
    Tensor[] inputs(ScalarType type) {
      return normals(type, new long[] {25, 12}, new long[] {25, 12}, new long[] {12}, new long[] {12});
    }

    @Override
    public Tensor[] apply(Tensor[] in) {
      return new Tensor[] {
        EncoderEpilogue.apply(in[0], EncoderEpilogue.options().residual(in[1]).affine(in[2], in[3]).dropout(0.2, 5, 1))
      };
    }
  },
  ENCODER_EPILOGUE_INTO {
    @Override
    Tensor[] inputs(ScalarType type) {
      return ENCODER_EPILOGUE.inputs(type);
    }

    @Override
    public Tensor[] apply(Tensor[] in) {
      Tensor pooled = Tensors.beside(in[0], torch.empty(new long[] {3, 12}, new TensorOptions(Checks.type(in[0])), null));
      Tensor graphPtr = Tensors.beside(in[0], Tensors.longs(0, 5, 5, 25));
      EncoderEpilogue.Options options = EncoderEpilogue.options().residual(in[1]).affine(in[2], in[3]).dropout(0.2, 5, 1);
      EncoderEpilogue.Result result = EncoderEpilogue.into(pooled, 0, graphPtr, in[0], options);
      return new Tensor[] {result.features(), result.pooled()};
    }
  },
  REPARAMETERIZE {
    @Override
    Tensor[] inputs(ScalarType type) {
      return normals(type, new long[] {7, 33}, new long[] {7, 33});
    }

    @Override
    public Tensor[] apply(Tensor[] in) {
      return new Tensor[] {Reparameterize.apply(in[0], in[1], 4)};
    }
  };

  abstract Tensor[] inputs(ScalarType type);

  /** Outputs and gradients on fresh leaves, as values. */
  List<double[]> run(ScalarType type) {
    Tensor[] leaves = Acceptance.leaves(inputs(type), type);
    Tensor[] outputs = apply(leaves);
    Random random = new Random(31);
    Tensor[] upstream = Stream.of(outputs).map(out -> Tensors.normal(random, type, out.shape())).toArray(Tensor[]::new);
    return Stream.concat(Stream.of(outputs), Acceptance.gradients(outputs, leaves, upstream).stream()).map(Tensors::values).toList();
  }

  private static Tensor[] normals(ScalarType type, long[]... shapes) {
    Random random = new Random(23);
    return Stream.of(shapes).map(shape -> Tensors.normal(random, type, shape)).toArray(Tensor[]::new);
  }
}
