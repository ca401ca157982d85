// SPDX-License-Identifier: Apache-2.0
package io.molfuse.benchmarks;

import io.molfuse.benchmarks.Inputs.Dtype;
import io.molfuse.benchmarks.OperatorSuites.Form;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.IntFunction;
import org.bytedeco.openblas.presets.openblas;
import org.bytedeco.pytorch.global.torch;

/** How time changes with threads, and with the size of the batch. f32, forward and backward. */
final class ScalingSuites {
  private final Settings settings;
  private final OperatorSuites operators;

  ScalingSuites(Settings settings) {
    this.settings = settings;
    operators = new OperatorSuites(settings);
  }

  List<Benchmark> all() {
    List<Benchmark> all = new ArrayList<>();
    if (!settings.cuda() && settings.threads() > 1) {
      Map<String, Benchmark.Make> cases = new LinkedHashMap<>();
      cases.put("attention B64 H8 N128 D32", () -> operators.attention(64, 8, 128, 32, Form.PLAIN, Dtype.F32, Pass.BOTH));
      cases.put("attention learned bias B64 H8 N128 D32", () -> operators.attention(64, 8, 128, 32, Form.BIAS, Dtype.F32, Pass.BOTH));
      cases.put("attention B2 H8 N1024 D64", () -> operators.attention(2, 8, 1024, 64, Form.PLAIN, Dtype.F32, Pass.BOTH));
      cases.put("graph_attention V1600 E3500 H8 C256", () -> operators.graphAttention(1600, 3500, 8, 256, Dtype.F32, Pass.BOTH));
      cases.put("vae_loss B64 T127 K300", () -> operators.vaeLoss(64, 127, 300, Dtype.F32, Pass.BOTH));
      cases.put("linear_vae_loss B64 T127 C256 K300", () -> operators.linearVaeLoss(64, 127, 256, 300, Dtype.F32, Pass.BOTH));
      cases.put("latent_concat L8 B64 nodes 25 C2048", () -> operators.latentConcat(8, 64, 25, 2048, Dtype.F32, Pass.BOTH));
      cases.put("reparameterize B8192 L1024", () -> operators.reparameterize(8192, 1024, Dtype.F32, Pass.BOTH));
      cases.put("encoder_epilogue B64 nodes 25 C2048", () -> operators.encoderEpilogue(64, 25, 2048, Dtype.F32, Pass.BOTH));
      cases.forEach((name, make) -> all.add(Benchmark.of("threads", name, () -> threads(make.make())).quick(name.startsWith("attention B64"))));
    }
    OperatorSuites alone = new OperatorSuites(settings.withoutPeers());
    Map<String, IntFunction<Comparison>> growing = new LinkedHashMap<>();
    growing.put("attention H8 N128 D32", b -> alone.attention(b, 8, 128, 32, Form.PLAIN, Dtype.F32, Pass.BOTH));
    growing.put("attention learned bias H8 N128 D32", b -> alone.attention(b, 8, 128, 32, Form.BIAS, Dtype.F32, Pass.BOTH));
    growing.put("graph_attention, 25 nodes and 55 edges a graph, H8 C256", b -> alone.graphAttention(25 * b, 55 * b, 8, 256, Dtype.F32, Pass.BOTH));
    growing.put("vae_loss T127 K300", b -> alone.vaeLoss(b, 127, 300, Dtype.F32, Pass.BOTH));
    growing.put("linear_vae_loss T127 C256 K300", b -> alone.linearVaeLoss(b, 127, 256, 300, Dtype.F32, Pass.BOTH));
    growing.put("latent_concat L4 nodes 25 C2048", b -> alone.latentConcat(4, b, 25, 2048, Dtype.F32, Pass.BOTH));
    growing.forEach((name, make) -> all.add(Benchmark.of("batch", name, () -> batches(make)).quick(name.startsWith("attention H8"))));
    return all;
  }

  private static void useThreads(int count) {
    torch.set_num_threads(count);
    openblas.blas_set_num_threads(count);
  }

  /** Every way with one thread and with all. */
  private Comparison threads(Comparison whole) {
    Comparison split = new Comparison();
    for (Way way : whole.ways()) {
      for (int count : new int[] {1, settings.threads()}) {
        split.add(way.named(way.name() + ", " + count + (count == 1 ? " thread" : " threads")).before(() -> useThreads(count)));
      }
    }
    whole.absent().forEach(split::absent);
    split.closing(whole, whole::close);
    split.closing(whole, () -> useThreads(settings.threads()));
    return split.cost(whole.cost());
  }

  /** Times for each graph or sequence of the batch. */
  private static Comparison batches(IntFunction<Comparison> make) {
    Comparison joined = new Comparison();
    for (int batch : new int[] {8, 16, 32, 64, 128}) {
      Comparison one = make.apply(batch);
      joined.closing(one, one::close);
      joined.add(one.ways().get(0).named("batch " + batch).units(batch));
    }
    return joined;
  }
}
