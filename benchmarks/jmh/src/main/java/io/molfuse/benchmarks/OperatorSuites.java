// SPDX-License-Identifier: Apache-2.0
package io.molfuse.benchmarks;

import io.molfuse.benchmarks.Inputs.Dtype;
import io.molfuse.ops.Attention;
import io.molfuse.ops.EncoderEpilogue;
import io.molfuse.ops.Graph;
import io.molfuse.ops.GraphAttention;
import io.molfuse.ops.LatentConcat;
import io.molfuse.ops.Reparameterize;
import io.molfuse.ops.VaeLoss;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptional;
import org.bytedeco.pytorch.global.torch;

/** Every operator family at the sizes of the molecular VAE and of the tabular model, and at sizes beyond the cache. */
final class OperatorSuites {
  private static final int RADIUS = 32;
  private static final double BETA = 1e-4;
  private static final double DROPOUT = 0.1;

  private final Settings settings;

  OperatorSuites(Settings settings) {
    this.settings = settings;
  }

  /** An operator with what it costs, of which the suites make a benchmark for each pass. */
  private interface Sized {
    Comparison of(Pass pass);
  }

  /** How attention is asked for. */
  enum Form {
    PLAIN("plain"), CAUSAL("causal"), BIAS("learned bias"), RELATIVE("learned relative bias");

    final String label;

    Form(String label) {
      this.label = label;
    }
  }

  List<Benchmark> all() {
    List<Benchmark> all = new ArrayList<>();
    int[][] sizes = {{256, 8, 4, 16}, {64, 8, 39, 32}, {64, 8, 128, 32}, {4, 8, 512, 64}, {2, 8, 1024, 64}};
    for (int[] size : sizes) {
      for (Form form : Form.values()) {
        for (Dtype dtype : Dtype.values()) {
          // Of the forms that differ little, bf16 has one size: libtorch takes seconds for some.
          if (dtype == Dtype.BF16 && (form == Form.CAUSAL || form == Form.RELATIVE && size[2] != 128)) {
            continue;
          }
          boolean quick = dtype == Dtype.F32 && (size[2] <= 128 || form == Form.PLAIN) || size[2] == 128 && form == Form.PLAIN;
          add(all, "attention", form.label, shape("B%d H%d N%d D%d", size), dtype, quick,
              pass -> attention(size[0], size[1], size[2], size[3], form, dtype, pass));
        }
      }
    }
    int[][] crossed = {{64, 8, 127, 4, 32}, {64, 8, 39, 128, 32}};
    for (int[] size : crossed) {
      add(all, "attention", "cross", shape("B%d H%d N%d M%d D%d", size), Dtype.F32, size[3] == 4,
          pass -> crossAttention(size[0], size[1], size[2], size[3], size[4], Dtype.F32, pass));
    }
    int[][] packed = {{64, 8, 39, 32}, {64, 8, 128, 32}};
    for (int[] size : packed) {
      add(all, "attention", "packed", shape("B%d H%d N<=%d D%d", size), Dtype.F32, size[2] == 128,
          pass -> packedAttention(size[0], size[1], size[2], size[3], Dtype.F32, pass));
    }
    for (Dtype dtype : Dtype.values()) {
      boolean quick = dtype == Dtype.F32;
      for (int[] size : new int[][] {{1600, 3500, 8, 256}, {1600, 3500, 8, 64}}) {
        add(all, "graph_attention", "", shape("V%d E%d H%d C%d", size), dtype, quick && size[3] == 256,
            pass -> graphAttention(size[0], size[1], size[2], size[3], dtype, pass));
      }
      for (int[] size : new int[][] {{64, 127, 40}, {64, 127, 39}, {64, 127, 300}, {64, 127, 4000}}) {
        add(all, "vae_loss", "", shape("B%d T%d K%d", size), dtype, quick && size[2] != 39, pass -> vaeLoss(size[0], size[1], size[2], dtype, pass));
      }
      for (int[] size : new int[][] {{64, 127, 256, 40}, {64, 127, 256, 300}}) {
        add(all, "linear_vae_loss", "", shape("B%d T%d C%d K%d", size), dtype, quick,
            pass -> linearVaeLoss(size[0], size[1], size[2], size[3], dtype, pass));
      }
      for (int[] size : new int[][] {{8, 64, 25, 2048}, {4, 64, 25, 512}}) {
        add(all, "latent_concat", "", shape("L%d B%d nodes %d C%d", size), dtype, quick && size[0] == 8,
            pass -> latentConcat(size[0], size[1], size[2], size[3], dtype, pass));
      }
      for (int[] size : new int[][] {{64, 128}, {8192, 1024}}) {
        add(all, "reparameterize", "", shape("B%d L%d", size), dtype, quick, pass -> reparameterize(size[0], size[1], dtype, pass));
      }
      for (int[] size : new int[][] {{64, 25, 2048}, {64, 25, 512}}) {
        add(all, "encoder_epilogue", "", shape("B%d nodes %d C%d", size), dtype, quick && size[2] == 2048,
            pass -> encoderEpilogue(size[0], size[1], size[2], dtype, pass));
      }
    }
    return all;
  }

  private static void add(List<Benchmark> all, String family, String form, String shape, Dtype dtype, boolean quick, Sized sized) {
    for (Pass pass : Pass.values()) {
      all.add(
          Benchmark.of(family, form.isEmpty() ? shape : form + " " + shape, () -> sized.of(pass))
              .with("form", form)
              .with("shape", shape)
              .with("dtype", dtype.label)
              .with("pass", pass.label)
              .quick(quick && (pass == Pass.BOTH || dtype == Dtype.F32)));
    }
  }

  private static String shape(String format, int[] size) {
    return String.format(format, Arrays.stream(size).boxed().toArray());
  }

  private static Tensor[] with(Tensor[] tensors, Tensor... more) {
    Tensor[] all = Arrays.copyOf(tensors, tensors.length + more.length);
    System.arraycopy(more, 0, all, tensors.length, more.length);
    return all;
  }

  /** True above the diagonal. */
  private static Tensor future(Inputs inputs, long n) {
    return torch.triu(inputs.filled(1, n, n), 1).to(torch.ScalarType.Bool);
  }

  private static Tensor relativePositions(Inputs inputs, int n) {
    long[] columns = new long[n * n];
    Arrays.setAll(columns, p -> Math.max(-RADIUS, Math.min(RADIUS, p % n - p / n)) + RADIUS);
    return inputs.longs(columns);
  }

  Comparison attention(int b, int h, int n, int d, Form form, Dtype dtype, Pass pass) {
    Inputs make = new Inputs(settings, dtype);
    Tensor[] inputs = {make.leaf(b, h, n, d), make.leaf(b, h, n, d), make.leaf(b, h, n, d)};
    double pairs = (double) b * h * n * (form == Form.CAUSAL ? (n + 1) / 2.0 : n);
    double rows = (double) b * h * n;
    Cost cost = Cost.attention(pass, rows, rows, pairs, d, form == Form.BIAS ? (double) h * n * n : 0, dtype.size);
    Tensor upstream = make.normal(b, h, n, d);
    Operator operator =
        switch (form) {
          case PLAIN -> new Operator(settings, dtype, inputs, upstream, in -> Attention.apply(in[0], in[1], in[2]))
              .peer("sdpa", in -> Eager.sdpa(in[0], in[1], in[2], null, false, 0))
              .peer("eager", in -> Eager.attention(in[0], in[1], in[2], null, null, 0));
          case CAUSAL -> {
            Tensor hidden = future(make, n);
            yield new Operator(settings, dtype, inputs, upstream, in -> Attention.apply(in[0], in[1], in[2], Attention.options().causal(true)))
                .peer("sdpa", in -> Eager.sdpa(in[0], in[1], in[2], null, true, 0))
                .peer("eager", in -> Eager.attention(in[0], in[1], in[2], null, hidden, 0));
          }
          case BIAS -> new Operator(settings, dtype, with(inputs, make.leaf(1, h, n, n)), upstream,
                  in -> Attention.apply(in[0], in[1], in[2], Attention.options().bias(in[3])))
              .peer("sdpa", in -> Eager.sdpa(in[0], in[1], in[2], in[3], false, 0))
              .peer("eager", in -> Eager.attention(in[0], in[1], in[2], in[3], null, 0));
          case RELATIVE -> {
            Tensor positions = relativePositions(make, n);
            yield new Operator(settings, dtype, with(inputs, make.leaf(h, 2 * RADIUS + 1)), upstream,
                    in -> Attention.apply(in[0], in[1], in[2], Attention.options().relativeBias(in[3])))
                .peer("sdpa", in -> Eager.sdpa(in[0], in[1], in[2], Eager.relativeBias(in[3], positions, n), false, 0))
                .peer("eager", in -> Eager.attention(in[0], in[1], in[2], Eager.relativeBias(in[3], positions, n), null, 0));
          }
        };
    return operator.comparison(pass, cost);
  }

  private Comparison crossAttention(int b, int h, int n, int m, int d, Dtype dtype, Pass pass) {
    Inputs make = new Inputs(settings, dtype);
    Tensor[] inputs = {make.leaf(b, h, n, d), make.leaf(b, h, m, d), make.leaf(b, h, m, d)};
    double batches = (double) b * h;
    return new Operator(settings, dtype, inputs, make.normal(b, h, n, d), in -> Attention.apply(in[0], in[1], in[2]))
        .peer("sdpa", in -> Eager.sdpa(in[0], in[1], in[2], null, false, 0))
        .peer("eager", in -> Eager.attention(in[0], in[1], in[2], null, null, 0))
        .comparison(pass, Cost.attention(pass, batches * n, batches * m, batches * n * m, d, 0, dtype.size));
  }

  /** Sequences of a third to all of n tokens. The peers, which have no packed form, get them padded, with a mask, free of charge. */
  private Comparison packedAttention(int b, int h, int n, int d, Dtype dtype, Pass pass) {
    Inputs make = new Inputs(settings, dtype);
    Random random = make.random();
    int[] starts = new int[b + 1];
    double pairs = 0;
    int longest = 0;
    float[] visible = new float[b * n];
    List<Long> places = new ArrayList<>();
    for (int i = 0; i < b; i++) {
      int length = n / 3 + random.nextInt(n - n / 3 + 1);
      starts[i + 1] = starts[i] + length;
      pairs += (double) length * length * h;
      longest = Math.max(longest, length);
      for (int j = 0; j < length; j++) {
        visible[i * n + j] = 1;
        places.add((long) i * n + j);
      }
    }
    int total = starts[b];
    int most = longest;
    Tensor sequences = make.ints(starts);
    Tensor[] inputs = {make.leaf(total, h, d), make.leaf(total, h, d), make.leaf(total, h, d)};
    Tensor upstream = make.normal(total, h, d);
    Tensor rows = make.longs(places.stream().mapToLong(Long::longValue).toArray());
    Tensor[] padded = new Tensor[4];
    for (int i = 0; i < 4; i++) {
      Tensor packed = i < 3 ? inputs[i].detach() : upstream;
      Tensor wide = make.zeros((long) b * n, h, d).index_copy(0, rows, packed).view(b, n, h, d).transpose(1, 2).contiguous();
      padded[i] = i < 3 ? make.leaf(wide) : wide;
    }
    Tensor[] wide = Arrays.copyOf(padded, 3);
    Tensor seen = torch.empty(new long[] {b, 1, 1, n});
    seen.data_ptr_float().put(visible);
    Tensor mask = seen.to(settings.device(), torch.ScalarType.Bool);
    Tensor hidden = mask.logical_not();
    double tokens = (double) total * h;
    return new Operator(settings, dtype, inputs, upstream, in -> Attention.varlen(in[0], in[1], in[2], sequences, sequences, most, most))
        .peer("sdpa", wide, padded[3], in -> Eager.sdpa(in[0], in[1], in[2], mask, false, 0), t -> unpadded(t, rows))
        .peer("eager", wide, padded[3], in -> Eager.attention(in[0], in[1], in[2], null, hidden, 0), t -> unpadded(t, rows))
        .comparison(pass, Cost.attention(pass, tokens, tokens, pairs, d, 0, dtype.size));
  }

  private static Tensor unpadded(Tensor wide, Tensor rows) {
    return wide.transpose(1, 2).reshape(-1, wide.size(1), wide.size(3)).index_select(0, rows);
  }

  Comparison graphAttention(int v, int e, int h, int c, Dtype dtype, Pass pass) {
    Inputs make = new Inputs(settings, dtype);
    Random random = make.random();
    long[] from = new long[e];
    long[] to = new long[e];
    for (int n = 0; n < e; n++) {
      // Graphs of 25 nodes, as a batch of molecules has.
      int first = random.nextInt(v / 25) * 25;
      from[n] = first + random.nextInt(25);
      to[n] = first + random.nextInt(25);
    }
    Graph graph = Graph.fromEdges(make.longs(from).cpu(), make.longs(to).cpu(), v).to(settings.device());
    Eager.Edges edges = Eager.Edges.of(make.longs(from), make.longs(to), h);
    Tensor[] inputs = {make.leaf(v, h, c), make.leaf(v, h, c), make.leaf(v, h, c)};
    return new Operator(settings, dtype, inputs, make.normal(v, h, c), in -> GraphAttention.apply(in[0], in[1], in[2], graph))
        .peer("eager", in -> Eager.graphAttention(in[0], in[1], in[2], edges, 0))
        .comparison(pass, Cost.graphAttention(pass, v, e, (double) h * c, dtype.size));
  }

  private static VaeLoss.Options lossOptions() {
    return VaeLoss.options().beta(BETA).padIndex(0);
  }

  private static double counted(Tensor targets) {
    return targets.ne(new Scalar(0)).sum().item_double();
  }

  Comparison vaeLoss(int b, int t, int k, Dtype dtype, Pass pass) {
    Inputs make = new Inputs(settings, dtype);
    Tensor targets = make.tokens(b, t, k);
    Tensor[] inputs = {make.leaf(b, t, k), make.leaf(b, 128), make.leaf(b, 128)};
    return new Operator(settings, dtype, inputs, make.one(), in -> VaeLoss.apply(in[0], targets, in[1], in[2], lossOptions()).total())
        .peer("eager", in -> Eager.vaeLoss(in[0], targets, in[1], in[2], BETA).to(torch.ScalarType.Float))
        .comparison(pass, Cost.vaeLoss(pass, counted(targets), (double) b * t, k, dtype.size));
  }

  Comparison linearVaeLoss(int b, int t, int c, int k, Dtype dtype, Pass pass) {
    Inputs make = new Inputs(settings, dtype);
    Tensor targets = make.tokens(b, t, k);
    Tensor weight = make.leaf(make.normal(k, c).mul(new Scalar(0.05)));
    Tensor[] inputs = {make.leaf(b, t, c), weight, make.leaf(k), make.leaf(b, 128), make.leaf(b, 128)};
    return new Operator(settings, dtype, inputs, make.one(),
            in -> VaeLoss.linear(in[0], in[1], in[2], targets, in[3], in[4], lossOptions()).total())
        .peer("eager",
            in -> Eager.vaeLoss(torch.linear(in[0], in[1], new TensorOptional(in[2])), targets, in[3], in[4], BETA).to(torch.ScalarType.Float))
        .comparison(pass, Cost.linearVaeLoss(pass, counted(targets), (double) b * t, k, c, dtype.size));
  }

  Comparison latentConcat(int layers, int graphs, int nodes, int width, Dtype dtype, Pass pass) {
    Inputs make = new Inputs(settings, dtype);
    int v = graphs * nodes;
    Tensor[] inputs = new Tensor[layers];
    Arrays.setAll(inputs, l -> make.leaf(v, width));
    Tensor graphPtr = make.starts(graphs, nodes);
    Tensor owners = make.owners(graphs, nodes);
    Tensor counts = make.filled(nodes, graphs, 1);
    return new Operator(settings, dtype, inputs, make.normal(graphs, (long) layers * width), in -> LatentConcat.apply(Arrays.asList(in), graphPtr))
        .peer("eager", in -> Eager.join(Arrays.stream(in).map(layer -> Eager.pool(layer, owners, counts)).toArray(Tensor[]::new)))
        .comparison(pass, Cost.latentConcat(pass, layers, v, graphs, width, dtype.size));
  }

  Comparison reparameterize(int b, int l, Dtype dtype, Pass pass) {
    Inputs make = new Inputs(settings, dtype);
    Tensor[] inputs = {make.leaf(b, l), make.leaf(b, l)};
    return new Operator(settings, dtype, inputs, make.normal(b, l), in -> Reparameterize.apply(in[0], in[1]))
        .peer("eager", in -> Eager.reparameterize(in[0], in[1]))
        .random()
        .comparison(pass, Cost.reparameterize(pass, (double) b * l, dtype.size));
  }

  /**
   * The end of an encoder layer in training, pooled into a slot. The small gradient of the pooled rows is left out on both sides.
   */
  Comparison encoderEpilogue(int graphs, int nodes, int width, Dtype dtype, Pass pass) {
    Inputs make = new Inputs(settings, dtype);
    int v = graphs * nodes;
    Tensor graphPtr = make.starts(graphs, nodes);
    Tensor owners = make.owners(graphs, nodes);
    Tensor counts = make.filled(nodes, graphs, 1);
    Tensor[] inputs = {make.leaf(v, width), make.leaf(v, width), make.leaf(width), make.leaf(width)};
    Inputs statistics = new Inputs(settings, Dtype.F32);
    Tensor runningMean = statistics.zeros(width);
    Tensor runningVar = statistics.filled(1, width);
    Tensor theirMean = make.zeros(width);
    Tensor theirVar = make.filled(1, width);
    // While results are compared, there is no dropout, which both draw differently, and the bias is so large that no ReLU has an input
    // that rounding errors bring to either side of 0.
    double[] dropout = {0};
    Tensor bias = inputs[3].detach();
    Tensor usual = bias.clone();
    bias.copy_(bias.sign().mul(new Scalar(30.0)));
    return new Operator(settings, dtype, inputs, make.normal(v, width),
            in -> EncoderEpilogue.into(
                    torch.empty(new long[] {graphs, width}, in[0].options(), null), 0, graphPtr, in[0],
                    EncoderEpilogue.options().residual(in[1]).affine(in[2], in[3]).running(runningMean, runningVar).dropout(dropout[0]))
                .features())
        .peer("eager",
            in -> {
              Tensor features = Eager.epilogue(in[0], in[1], in[2], in[3], theirMean, theirVar, dropout[0]);
              Eager.pool(features, owners, counts);
              return features;
            })
        .afterComparing(
            () -> {
              dropout[0] = DROPOUT;
              bias.copy_(usual);
            })
        .comparison(pass, Cost.encoderEpilogue(pass, v, width, dtype.size));
  }
}
