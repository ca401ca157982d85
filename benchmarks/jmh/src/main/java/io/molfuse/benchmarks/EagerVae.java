// SPDX-License-Identifier: Apache-2.0
package io.molfuse.benchmarks;

import io.molfuse.models.ModelConfig;
import io.molfuse.models.VaeBatch;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;
import java.util.function.BinaryOperator;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptional;
import org.bytedeco.pytorch.TensorVector;
import org.bytedeco.pytorch.global.torch;

/** The training loss of the molecular VAE by libtorch's own operators, on the parameters of a {@code MolecularVae}. */
final class EagerVae {
  private final ModelConfig config;
  private final Map<String, Tensor> tensors;
  private final Map<String, Tensor> running = new HashMap<>();
  private final BinaryOperator<Tensor> sample;

  /**
   * @param config one latent slot, all encoder layers selected
   * @param tensors parameters and buffers by name; the running statistics of this model are its own
   * @param sample of a latent by its mean and the logarithm of its variance
   */
  EagerVae(ModelConfig config, Map<String, Tensor> tensors, BinaryOperator<Tensor> sample) {
    if (config.latent().slots() != 1 || config.encoder().selected() != config.encoder().layers() || config.condition().any()) {
      throw new IllegalArgumentException("a model with one latent slot, all encoder layers pooled and no conditions is expected");
    }
    this.config = config;
    this.tensors = tensors;
    this.sample = sample;
    tensors.forEach((name, tensor) -> {
      if (name.contains("running_")) {
        running.put(name, tensor.clone());
      }
    });
  }

  /** What a batch is to this model beside its tensors. */
  record Batch(VaeBatch tensors, Eager.Edges edges, Tensor owners, Tensor counts, Tensor future, Tensor positions) {
    static Batch of(VaeBatch batch, ModelConfig config, Inputs make) {
      int[] rowPtr = ints(batch.graph().rowPtr());
      int[] graphPtr = ints(batch.graphPtr());
      long[] targets = new long[rowPtr[rowPtr.length - 1]];
      for (int v = 0; v + 1 < rowPtr.length; v++) {
        Arrays.fill(targets, rowPtr[v], rowPtr[v + 1], v);
      }
      int graphs = graphPtr.length - 1;
      long[] owners = new long[graphPtr[graphs]];
      for (int b = 0; b < graphs; b++) {
        Arrays.fill(owners, graphPtr[b], graphPtr[b + 1], b);
      }
      int n = (int) batch.inputs().size(1);
      int radius = config.decoder().relativeDistance();
      long[] positions = new long[n * n];
      Arrays.setAll(positions, p -> Math.max(-radius, Math.min(radius, p % n - p / n)) + radius);
      Tensor first = batch.graphPtr().narrow(0, 0L, graphs);
      Tensor counts = batch.graphPtr().narrow(0, 1L, graphs).sub(first).to(torch.ScalarType.Float).view(graphs, 1);
      return new Batch(
          batch,
          Eager.Edges.of(batch.graph().source().to(torch.ScalarType.Long), make.longs(targets), config.encoder().heads()),
          make.longs(owners),
          counts,
          torch.triu(make.filled(1, n, n), 1).to(torch.ScalarType.Bool),
          make.longs(positions));
    }

    private static int[] ints(Tensor tensor) {
      int[] values = new int[(int) tensor.numel()];
      tensor.cpu().data_ptr_int().get(values);
      return values;
    }
  }

  private Tensor get(String name) {
    Tensor tensor = tensors.get(name);
    if (tensor == null) {
      throw new IllegalStateException("the model has no " + name);
    }
    return tensor;
  }

  private Tensor linear(String name, Tensor input) {
    return torch.linear(input, get(name + ".weight"), new TensorOptional(get(name + ".bias")));
  }

  private Tensor norm(String name, Tensor input) {
    return torch.layer_norm(
        input, new long[] {input.size(-1)}, new TensorOptional(get(name + ".weight")), new TensorOptional(get(name + ".bias")), 1e-5, false);
  }

  private static Tensor dropout(Tensor input, double p) {
    return p > 0 ? torch.dropout(input, p, true) : input;
  }

  /** Reconstruction plus beta times the Kullback-Leibler term. */
  Tensor loss(Batch batch, double beta) {
    Tensor pooled = encode(batch);
    Tensor mean = linear("latent.mean", pooled);
    Tensor logVar = linear("latent.log_var", pooled);
    Tensor latent = dropout(sample.apply(mean, logVar), config.latent().dropout());
    Tensor memory = linear("latent.memory", latent).view(-1, config.latent().memorySlots(), config.decoder().hidden());
    return Eager.vaeLoss(linear("decoder.vocabulary", decode(batch, memory)), batch.tensors.targets(), mean, logVar, beta);
  }

  private Tensor encode(Batch batch) {
    ModelConfig.Encoder encoder = config.encoder();
    Tensor features = batch.tensors.nodes().mul(get("encoder.feature_scale"));
    Tensor[] pooled = new Tensor[encoder.layers()];
    for (int i = 0; i < pooled.length; i++) {
      String layer = "encoder.layers." + i;
      TensorVector parts = linear(layer + ".qkv_skip", features).split(encoder.width(), 1);
      Tensor[] heads = new Tensor[3];
      Arrays.setAll(heads, p -> parts.get(p).view(-1, encoder.heads(), encoder.channels()));
      Tensor attended = Eager.graphAttention(heads[0], heads[1], heads[2], batch.edges, encoder.dropout()).view(-1, encoder.width());
      features =
          Eager.epilogue(
              attended, parts.get(3), get(layer + ".norm.weight"), get(layer + ".norm.bias"),
              running.get(layer + ".norm.running_mean"), running.get(layer + ".norm.running_var"), encoder.dropout());
      pooled[i] = Eager.pool(features, batch.owners, batch.counts);
    }
    return Eager.join(pooled);
  }

  private Tensor decode(Batch batch, Tensor memory) {
    ModelConfig.Decoder decoder = config.decoder();
    Tensor tokens = batch.tensors.inputs();
    long n = tokens.size(1);
    Tensor state = torch.embedding(get("decoder.token_embedding"), tokens).add(get("decoder.position_embedding").narrow(0, 0L, n));
    for (int i = 0; i < decoder.layers(); i++) {
      String layer = "decoder.layers." + i;
      TensorVector self = linear(layer + ".self_qkv", norm(layer + ".self_norm", state)).split(decoder.hidden(), -1);
      Tensor bias = i == 0 ? null : Eager.relativeBias(get(layer + ".relative_bias"), batch.positions, n);
      Tensor attended =
          bias == null
              ? Eager.sdpa(heads(self.get(0)), heads(self.get(1)), heads(self.get(2)), null, true, decoder.dropout())
              : Eager.sdpa(
                  heads(self.get(0)), heads(self.get(1)), heads(self.get(2)),
                  bias.masked_fill(batch.future, new Scalar(Double.NEGATIVE_INFINITY)), false, decoder.dropout());
      state = state.add(dropout(linear(layer + ".self_out", joined(attended)), decoder.dropout()));
      TensorVector other = linear(layer + ".cross_kv", memory).split(decoder.hidden(), -1);
      Tensor query = heads(linear(layer + ".cross_query", norm(layer + ".cross_norm", state)));
      Tensor crossed = Eager.sdpa(query, heads(other.get(0)), heads(other.get(1)), null, false, decoder.dropout());
      state = state.add(dropout(linear(layer + ".cross_out", joined(crossed)), decoder.dropout()));
      Tensor inner = torch.gelu(linear(layer + ".ff_in", norm(layer + ".ff_norm", state)));
      state = state.add(dropout(linear(layer + ".ff_out", inner), decoder.dropout()));
    }
    return norm("decoder.final_norm", state);
  }

  private Tensor heads(Tensor rows) {
    return rows.view(rows.size(0), rows.size(1), config.decoder().heads(), config.decoder().headWidth()).transpose(1, 2);
  }

  private Tensor joined(Tensor heads) {
    return heads.transpose(1, 2).reshape(heads.size(0), heads.size(2), config.decoder().hidden());
  }
}
