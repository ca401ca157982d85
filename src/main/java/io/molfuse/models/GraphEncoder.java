// SPDX-License-Identifier: Apache-2.0
package io.molfuse.models;

import io.molfuse.ops.EncoderEpilogue;
import io.molfuse.ops.Graph;
import io.molfuse.ops.GraphAttention;
import io.molfuse.ops.LatentConcat;
import io.molfuse.train.Checkpointing;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorVector;
import org.bytedeco.pytorch.global.torch;

/**
 * Graph transformer layers (Shi et al. 2020): attention over neighbours plus a skip projection, batch norm, ReLU, dropout. The
 * selected layers are mean-pooled as soon as they are computed, each into its columns of the result.
 */
final class GraphEncoder {
  private static final class Layer {
    final Linear queryKeyValueSkip;
    final BatchNorm norm;

    Layer(ParameterFactory parameters, int in, int width) {
      queryKeyValueSkip = Linear.fused(parameters.under("qkv_skip"), in, width, 4, 1);
      norm = new BatchNorm(parameters.under("norm"), width);
    }
  }

  /** A layer before its norm, and what follows. */
  private record Attended(Tensor values, EncoderEpilogue.Options epilogue) {}

  /**
   * Brings atomic number, degree, charge, hybridisation, aromaticity and unpaired electrons to about one: the first layer's
   * scores grow with the square of its input, and softmax saturates.
   */
  private static final float[] FEATURE_SCALE = {0.1f, 0.25f, 1, 0.25f, 1, 1};

  private final ModelConfig.Encoder config;
  private final Tensor featureScale;
  private final Layer[] layers;
  private final int[] selected;
  private boolean checkpointing;

  GraphEncoder(ParameterFactory parameters, ModelConfig.Encoder config) {
    this.config = config;
    featureScale = parameters.buffer("feature_scale", FEATURE_SCALE);
    layers = new Layer[config.layers()];
    for (int i = 0; i < layers.length; i++) {
      layers[i] =
          new Layer(
              parameters.under("layers." + i), i == 0 ? ModelConfig.NODE_FEATURES : config.width(), config.width());
    }
    selected = config.selectedLayers();
  }

  /** Lets backward compute the layers again instead of keeping their intermediate results. */
  void checkpointing(boolean on) {
    checkpointing = on;
  }

  /**
   * Encodes a batch of graphs.
   *
   * @param nodes [V,6] f32
   * @param graph edges over the V nodes
   * @param graphPtr [B+1] first node of each graph
   * @return [B, selected * width]
   */
  Tensor apply(Tensor nodes, Graph graph, Tensor graphPtr, Regularize regularize) {
    int width = config.width();
    boolean twice = checkpointing && regularize.training();
    Tensor features = nodes.mul(featureScale);
    Tensor pooled = null;
    int slot = 0;
    for (int i = 0; i < layers.length; i++) {
      int layer = i;
      if (twice) {
        features = Checkpointing.run(features, input -> layer(layer, input, graph, regularize));
      } else if (slot < selected.length && selected[slot] == i + 1) {
        Attended attended = attend(i, features, graph, regularize);
        pooled = pooled == null ? room(graphPtr, attended.values()) : pooled;
        EncoderEpilogue.Result result =
            EncoderEpilogue.into(pooled, (long) slot * width, graphPtr, attended.values(), attended.epilogue());
        features = result.features();
        pooled = result.pooled();
        slot++;
      } else {
        features = layer(i, features, graph, regularize);
      }
      // The last layer may be selected more than once; and what runs twice must not write in place.
      for (; slot < selected.length && selected[slot] == i + 1; slot++) {
        pooled = LatentConcat.into(pooled == null ? room(graphPtr, features) : pooled, (long) slot * width, features, graphPtr);
      }
    }
    return pooled;
  }

  /** Memory for the result, in the layers' type, which autocast may have lowered. */
  private Tensor room(Tensor graphPtr, Tensor like) {
    return torch.empty(new long[] {graphPtr.numel() - 1, (long) selected.length * config.width()}, like.options(), null);
  }

  private Tensor layer(int index, Tensor features, Graph graph, Regularize regularize) {
    Attended attended = attend(index, features, graph, regularize);
    return EncoderEpilogue.apply(attended.values(), attended.epilogue());
  }

  private Attended attend(int index, Tensor features, Graph graph, Regularize regularize) {
    TensorVector parts = projections(index, features);
    Tensor values =
        GraphAttention.apply(
                heads(parts.get(0)),
                heads(parts.get(1)),
                heads(parts.get(2)),
                graph,
                GraphAttention.options().dropout(regularize.probability(config.dropout()), regularize.seed(), index))
            .view(-1, config.width());
    EncoderEpilogue.Options epilogue =
        layers[index]
            .norm
            .epilogue(features.size(0), regularize.training())
            .residual(parts.get(3))
            .dropout(regularize.probability(config.dropout()), regularize.seed(), layers.length + index);
    return new Attended(values, epilogue);
  }

  /** Query, key, value and skip connection. */
  private TensorVector projections(int index, Tensor features) {
    // split and not narrow: its backward joins the four gradients in one pass.
    return layers[index].queryKeyValueSkip.apply(features).split(config.width(), 1);
  }

  private Tensor heads(Tensor rows) {
    return rows.view(rows.size(0), config.heads(), config.channels());
  }
}
