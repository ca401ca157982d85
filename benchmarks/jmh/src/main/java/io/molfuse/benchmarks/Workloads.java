// SPDX-License-Identifier: Apache-2.0
package io.molfuse.benchmarks;

import io.molfuse.ops.Attention;
import io.molfuse.ops.EncoderEpilogue;
import io.molfuse.ops.Graph;
import io.molfuse.ops.GraphAttention;
import io.molfuse.ops.LatentConcat;
import io.molfuse.ops.VaeLoss;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Random;
import java.util.function.Supplier;
import org.bytedeco.pytorch.DoubleOptional;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.ScalarTypeOptional;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptional;
import org.bytedeco.pytorch.TensorOptions;
import org.bytedeco.pytorch.TensorVector;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch.ScalarType;

/** The sizes of the molecular VAE and of the tabular model. */
final class Workloads {
  private static final Map<String, Supplier<Workload>> ALL = new LinkedHashMap<>();

  static {
    ALL.put("vae_loss 64x127x40", () -> vaeLoss(64, 127, 40));
    ALL.put("vae_loss 64x127x39", () -> vaeLoss(64, 127, 39));
    ALL.put("vae_loss 64x127x300", () -> vaeLoss(64, 127, 300));
    ALL.put("linear_vae_loss 64x127, 256 to 300", () -> linearVaeLoss(64, 127, 256, 300));
    ALL.put("encoder_epilogue 1600x2048", () -> encoderEpilogue(64, 25, 2048));
    ALL.put("latent_concat 8 x 1600x2048", () -> latentConcat(8, 64, 25, 2048));
    ALL.put("graph_attention V1600 E3500 H8 C256", () -> graphAttention(1600, 3500, 8, 256));
    ALL.put("attention B64 H8 N128 D32", () -> attention(64, 8, 128, 32, Kind.PLAIN));
    ALL.put("attention B64 H8 N128 D32 causal", () -> attention(64, 8, 128, 32, Kind.CAUSAL));
    ALL.put("attention B64 H8 N128 D32 learned bias", () -> attention(64, 8, 128, 32, Kind.BIAS));
    ALL.put("attention B64 H8 N128 D32 learned relative bias", () -> attention(64, 8, 128, 32, Kind.RELATIVE));
    ALL.put("attention B256 H8 N4 D16", () -> attention(256, 8, 4, 16, Kind.PLAIN));
    ALL.put("attention B2 H8 N1024 D64", () -> attention(2, 8, 1024, 64, Kind.PLAIN));
  }

  private Workloads() {}

  static String[] names() {
    return ALL.keySet().toArray(String[]::new);
  }

  static Workload make(String name) {
    return ALL.get(name).get();
  }

  private enum Kind { PLAIN, CAUSAL, BIAS, RELATIVE }

  private static Tensor normal(Random random, long... shape) {
    float[] values = new float[(int) Arrays.stream(shape).reduce(1, (a, b) -> a * b)];
    for (int n = 0; n < values.length; n++) {
      values[n] = (float) random.nextGaussian();
    }
    Tensor tensor = torch.empty(shape, new TensorOptions(ScalarType.Float), null);
    tensor.data_ptr_float().put(values);
    return tensor;
  }

  private static Tensor leaf(Random random, long... shape) {
    return normal(random, shape).set_requires_grad(true);
  }

  private static Tensor longs(long[] values, long... shape) {
    Tensor tensor = torch.empty(shape, new TensorOptions(ScalarType.Long), null);
    tensor.data_ptr_long().put(values);
    return tensor;
  }

  private static Tensor one() {
    return torch.ones(new long[0]);
  }

  private static Tensor attentionOf(Tensor[] in, Tensor bias, boolean causal) {
    return torch.scaled_dot_product_attention(
        in[0], in[1], in[2], bias == null ? new TensorOptional() : new TensorOptional(bias), 0.0, causal, new DoubleOptional(), false);
  }

  private static Workload attention(long b, long h, long n, long d, Kind kind) {
    Random random = new Random(1);
    int radius = 32;
    Tensor[] inputs = {leaf(random, b, h, n, d), leaf(random, b, h, n, d), leaf(random, b, h, n, d)};
    if (kind == Kind.BIAS || kind == Kind.RELATIVE) {
      inputs = Arrays.copyOf(inputs, 4);
      inputs[3] = kind == Kind.BIAS ? leaf(random, 1, h, n, n) : leaf(random, h, 2 * radius + 1);
    }
    long[] distances = new long[(int) (n * n)];
    for (int i = 0; i < n; i++) {
      for (int j = 0; j < n; j++) {
        distances[(int) (i * n + j)] = Math.max(-radius, Math.min(radius, j - i)) + radius;
      }
    }
    Tensor positions = longs(distances, n * n);
    // Forward two products, backward five; a causal mask leaves half of the scores.
    double operations = 14.0 * b * h * n * n * d / (kind == Kind.CAUSAL ? 2 : 1);
    return new Workload("attention", inputs, normal(random, b, h, n, d), 0, operations,
        in -> Attention.apply(in[0], in[1], in[2], switch (kind) {
          case PLAIN -> Attention.options();
          case CAUSAL -> Attention.options().causal(true);
          case BIAS -> Attention.options().bias(in[3]);
          case RELATIVE -> Attention.options().relativeBias(in[3]);
        }),
        in -> switch (kind) {
          case PLAIN -> attentionOf(in, null, false);
          case CAUSAL -> attentionOf(in, null, true);
          case BIAS -> attentionOf(in, in[3], false);
          case RELATIVE -> attentionOf(in, in[3].index_select(1, positions).view(1, h, n, n), false);
        });
  }

  private static Tensor tokens(Random random, int b, int t, int k) {
    long[] values = new long[b * t];
    for (int row = 0; row < b; row++) {
      int length = t / 3 + random.nextInt(t - t / 3);
      for (int n = 0; n < length; n++) {
        values[row * t + n] = 1 + random.nextInt(k - 1);
      }
    }
    return longs(values, b, t);
  }

  /** What a user of libtorch writes: its own masked cross entropy and the Kullback-Leibler term; no accuracy, no perplexity. */
  private static Tensor eagerLoss(Tensor logits, Tensor targets, Tensor mean, Tensor logVar, double beta) {
    Tensor rows = logits.reshape(-1, logits.size(-1));
    Tensor recon = torch.cross_entropy_loss(rows, targets.reshape(-1), new TensorOptional(), 1, 0, 0.0);
    Tensor clamped = torch.clamp(logVar, new org.bytedeco.pytorch.ScalarOptional(new Scalar(-20.0)),
        new org.bytedeco.pytorch.ScalarOptional(new Scalar(10.0)));
    Tensor kl = clamped.add(new Scalar(1.0)).sub(mean.square()).sub(clamped.exp()).mean(new ScalarTypeOptional()).mul(new Scalar(-0.5));
    return recon.add(kl.mul(new Scalar(beta)));
  }

  private static Workload vaeLoss(int b, int t, int k) {
    Random random = new Random(2);
    double beta = 1e-4;
    Tensor targets = tokens(random, b, t, k);
    Tensor[] inputs = {leaf(random, b, t, k), leaf(random, b, 128), leaf(random, b, 128)};
    VaeLoss.Options options = VaeLoss.options().beta(beta).padIndex(0);
    // Read the logits of the tokens that count, and write the whole gradient.
    double counted = targets.ne(new Scalar(0)).sum().item_double();
    return new Workload("vae_loss", inputs, one(), (counted + b * t) * 4 * k, 0,
        in -> VaeLoss.apply(in[0], targets, in[1], in[2], options).total(),
        in -> eagerLoss(in[0], targets, in[1], in[2], beta));
  }

  private static Workload linearVaeLoss(int b, int t, int c, int k) {
    Random random = new Random(3);
    double beta = 1e-4;
    Tensor targets = tokens(random, b, t, k);
    Tensor weight = normal(random, k, c).mul_(new Scalar(0.05)).detach().set_requires_grad(true);
    Tensor[] inputs = {leaf(random, b, t, c), weight, leaf(random, k), leaf(random, b, 128), leaf(random, b, 128)};
    VaeLoss.Options options = VaeLoss.options().beta(beta).padIndex(0);
    // Three products over the tokens that count.
    double counted = targets.ne(new Scalar(0)).sum().item_double();
    return new Workload("linear_vae_loss", inputs, one(), 0, 6.0 * counted * c * k,
        in -> VaeLoss.linear(in[0], in[1], in[2], targets, in[3], in[4], options).total(),
        in -> eagerLoss(torch.linear(in[0], in[1], new TensorOptional(in[2])), targets, in[3], in[4], beta));
  }

  private static Workload latentConcat(int layers, int graphs, int nodes, int width) {
    Random random = new Random(4);
    int v = graphs * nodes;
    Tensor[] inputs = new Tensor[layers];
    for (int l = 0; l < layers; l++) {
      inputs[l] = leaf(random, v, width);
    }
    int[] starts = new int[graphs + 1];
    long[] owner = new long[v];
    for (int g = 0; g < graphs; g++) {
      starts[g + 1] = (g + 1) * nodes;
      Arrays.fill(owner, g * nodes, (g + 1) * nodes, g);
    }
    Tensor graphPtr = torch.empty(new long[] {graphs + 1}, new TensorOptions(ScalarType.Int), null);
    graphPtr.data_ptr_int().put(starts);
    Tensor batch = longs(owner, v);
    // Forward reads every layer, backward writes every layer's gradient; the pooled rows are small beside them.
    return new Workload("latent_concat", inputs, normal(random, graphs, (long) layers * width), 2.0 * 4 * layers * v * width, 0,
        in -> LatentConcat.apply(Arrays.asList(in), graphPtr),
        in -> {
          TensorVector pooled = new TensorVector();
          for (Tensor layer : in) {
            Tensor sum = torch.zeros(new long[] {graphs, width}).index_add(0, batch, layer);
            pooled.push_back(sum.div(new Scalar((double) nodes)));
          }
          return torch.cat(pooled, 1);
        });
  }

  /** The end of an encoder layer in training: skip connection, batch norm, ReLU, dropout, pooling into a slot. */
  private static Workload encoderEpilogue(int graphs, int nodes, int width) {
    Random random = new Random(6);
    int v = graphs * nodes;
    double dropout = 0.1;
    int[] starts = new int[graphs + 1];
    long[] owner = new long[v];
    for (int g = 0; g < graphs; g++) {
      starts[g + 1] = (g + 1) * nodes;
      Arrays.fill(owner, g * nodes, (g + 1) * nodes, g);
    }
    Tensor graphPtr = torch.empty(new long[] {graphs + 1}, new TensorOptions(ScalarType.Int), null);
    graphPtr.data_ptr_int().put(starts);
    Tensor batch = longs(owner, v);
    Tensor[] inputs = {leaf(random, v, width), leaf(random, v, width), leaf(random, width), leaf(random, width)};
    Tensor runningMean = torch.zeros(new long[] {width});
    Tensor runningVar = torch.ones(new long[] {width});
    Tensor slot = normal(random, graphs, width);
    Tensor upstream = normal(random, v, width);
    // Forward reads both inputs, writes their sum, reads it again and writes the result; backward reads the gradient and the sum twice
    // and writes one gradient, which is that of both inputs. The small gradient of the pooled rows is left out on both sides.
    return new Workload("encoder_epilogue", inputs, upstream, 10.0 * 4 * v * width, 0,
        in -> {
          EncoderEpilogue.Result result = EncoderEpilogue.into(slot.detach().clone(), 0, graphPtr, in[0],
              EncoderEpilogue.options().residual(in[1]).affine(in[2], in[3]).running(runningMean, runningVar).dropout(dropout));
          return result.features();
        },
        in -> {
          Tensor normalised = torch.batch_norm(in[0].add(in[1]), new TensorOptional(in[2]), new TensorOptional(in[3]),
              new TensorOptional(runningMean), new TensorOptional(runningVar), true, 0.1, 1e-5, false);
          Tensor features = torch.dropout(torch.relu(normalised), dropout, true);
          torch.zeros(new long[] {graphs, width}).index_add(0, batch, features).div(new Scalar((double) nodes));
          return features;
        });
  }

  private static Workload graphAttention(int v, int e, int h, int c) {
    Random random = new Random(5);
    long[] from = new long[e];
    long[] to = new long[e];
    for (int n = 0; n < e; n++) {
      // Graphs of 25 nodes, as a batch of molecules has.
      int first = random.nextInt(v / 25) * 25;
      from[n] = first + random.nextInt(25);
      to[n] = first + random.nextInt(25);
    }
    Tensor source = longs(from, e);
    Tensor target = longs(to, e);
    Graph graph = Graph.fromEdges(source, target, v);
    Tensor spread = target.view(e, 1).expand(new long[] {e, h}, false).contiguous();
    Tensor[] inputs = {leaf(random, v, h, c), leaf(random, v, h, c), leaf(random, v, h, c)};
    // q, k, v in and out written; backward reads these four and the upstream gradient and writes three.
    return new Workload("graph_attention", inputs, normal(random, v, h, c), 12.0 * 4 * v * h * c, 0,
        in -> GraphAttention.apply(in[0], in[1], in[2], graph),
        in -> {
          Tensor score = in[0].index_select(0, target).mul(in[1].index_select(0, source)).sum(-1).div(new Scalar(Math.sqrt(c)));
          Tensor largest = torch.full(new long[] {v, h}, new Scalar(Float.NEGATIVE_INFINITY)).scatter_reduce(0, spread, score.detach(), "amax");
          Tensor weight = score.sub(largest.index_select(0, target)).exp();
          Tensor sum = torch.zeros(new long[] {v, h}).index_add(0, target, weight);
          Tensor share = weight.div(sum.index_select(0, target));
          Tensor message = in[2].index_select(0, source).mul(share.unsqueeze(-1));
          return torch.zeros(new long[] {v, h, c}).index_add(0, target, message);
        });
  }
}
