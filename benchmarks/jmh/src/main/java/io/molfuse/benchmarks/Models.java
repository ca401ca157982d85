// SPDX-License-Identifier: Apache-2.0
package io.molfuse.benchmarks;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.SerializationFeature;
import io.molfuse.chem.GraphBatch;
import io.molfuse.chem.MoleculeDataset;
import io.molfuse.models.GenerationOptions;
import io.molfuse.models.Generator;
import io.molfuse.models.ModelConfig;
import io.molfuse.models.MolecularVae;
import io.molfuse.models.MoleculeBatches;
import io.molfuse.models.VaeTask;
import io.molfuse.ops.Molfuse;
import io.molfuse.train.AdamW;
import io.molfuse.train.Losses;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.global.torch;

/**
 * The molecular VAE as a whole on the CPU: training with the fused operators and with chains of libtorch's own, decoding with and without
 * a cache. What is compared alternates within this process. Options: --quick, --output DIR for models.json.
 */
@SuppressWarnings("try") // A scope does its work by being open.
public final class Models {
  private static final ObjectMapper JSON = new ObjectMapper().enable(SerializationFeature.INDENT_OUTPUT);

  private final boolean quick;
  private final MoleculeDataset molecules;
  private final Map<String, Object> results = new LinkedHashMap<>();

  private Models(boolean quick) {
    this.quick = quick;
    molecules = MoleculeDataset.bundled("moses-25k", new MoleculeDataset.Options().limit(2000));
  }

  public static void main(String[] args) throws IOException {
    List<String> given = Arrays.asList(args);
    Molfuse.load();
    Models models = new Models(given.contains("--quick"));
    models.results.put("commit", System.getProperty("molfuse.commit", "unknown"));
    models.results.put("threads", torch.get_num_threads());
    models.results.put("cpu", Molfuse.capabilities().cpuVectorLevel());
    models.results.put("quick", models.quick);
    models.training("training, preset small", small(), 64, false, models.quick ? 3 : 15);
    models.training("training, preset large", large(), 16, true, models.quick ? 1 : 3);
    models.decoding();
    String text = JSON.writeValueAsString(models.results);
    System.out.println(text);
    int output = given.indexOf("--output");
    if (output >= 0) {
      Files.writeString(Path.of(given.get(output + 1)).resolve("models.json"), text + "\n");
    }
  }

  /** The preset's model. */
  private static ModelConfig small() {
    return new ModelConfig(
        new ModelConfig.Encoder(4, 4, 8, 64, 0.1),
        new ModelConfig.Latent(1, 128, 4, 0.1),
        new ModelConfig.Decoder(4, 8, 256, 1024, 128, 127, 0.1));
  }

  /** The preset's model. */
  private static ModelConfig large() {
    return new ModelConfig(
        new ModelConfig.Encoder(10, 8, 8, 256, 0.1),
        new ModelConfig.Latent(1, 128, 8, 0.1),
        new ModelConfig.Decoder(6, 8, 256, 1024, 128, 127, 0.1));
  }

  /** Whole steps: forward, backward, clipping, AdamW. */
  private void training(String name, ModelConfig config, int batchSize, boolean checkpointing, int rounds) {
    try (MolecularVae model = new MolecularVae(config, molecules.vocabulary().size(), 1).checkpointing(checkpointing);
        AdamW optimizer = new AdamW(model.parameters(), Map.of(), 0.01)) {
      VaeTask task = new VaeTask(model, 1e-4);
      MoleculeBatches batches = new MoleculeBatches(molecules, molecules.entries(), batchSize, true, 1);
      List<Double> fused = new ArrayList<>();
      List<Double> chains = new ArrayList<>();
      for (int round = 0; round <= rounds; round++) {
        GraphBatch batch = batches.batch(round);
        Molfuse.setFused(true);
        double one = step(task, optimizer, batch);
        Molfuse.setFused(false);
        double other = step(task, optimizer, batch);
        // The first round warms up.
        if (round > 0) {
          fused.add(one);
          chains.add(other);
        }
      }
      Molfuse.setFused(true);
      compare(name, "fused operators", "libtorch's operators", "molecules/s", batchSize, fused, chains);
    }
  }

  private static double step(VaeTask task, AdamW optimizer, GraphBatch batch) {
    long start = System.nanoTime();
    try (PointerScope scope = new PointerScope()) {
      Losses losses = task.train(batch, start);
      optimizer.dropGradients();
      losses.total().backward();
      optimizer.clipGradients(1);
      optimizer.step(1e-5);
    }
    return (System.nanoTime() - start) * 1e-9;
  }

  /** An untrained model ends its sequences late, which is why the rate is of tokens. */
  private void decoding() {
    int count = quick ? 64 : 256;
    try (MolecularVae model = new MolecularVae(small(), molecules.vocabulary().size(), 1)) {
      Generator cached = new Generator(model, molecules.vocabulary());
      Generator plain = new Generator(model, molecules.vocabulary()).cached(false);
      List<Double> with = new ArrayList<>();
      List<Double> without = new ArrayList<>();
      double tokens = 0;
      for (int round = 0; round <= (quick ? 1 : 3); round++) {
        GenerationOptions options = GenerationOptions.seeded(1);
        long start = System.nanoTime();
        List<String> first = cached.sample(count, options);
        long middle = System.nanoTime();
        List<String> second = plain.sample(count, options);
        long end = System.nanoTime();
        if (round > 0) {
          with.add((middle - start) * 1e-9);
          without.add((end - middle) * 1e-9);
        }
        tokens = first.stream().mapToLong(text -> text.chars().filter(c -> c == '[').count() + 1).sum();
        results.put("decoding, molecules that agree", agreeing(first, second) + " of " + count);
      }
      compare("decoding, preset small", "key/value cache", "no cache", "tokens/s", tokens, with, without);
    }
  }

  private static long agreeing(List<String> first, List<String> second) {
    long same = 0;
    for (int i = 0; i < first.size(); i++) {
      same += first.get(i).equals(second.get(i)) ? 1 : 0;
    }
    return same;
  }

  private void compare(String name, String ours, String other, String unit, double amount, List<Double> first, List<Double> second) {
    double one = median(first);
    double two = median(second);
    Map<String, Object> result = new LinkedHashMap<>();
    result.put("unit", unit);
    result.put(ours, amount / one);
    result.put(other, amount / two);
    result.put("ratio", two / one);
    result.put("seconds, " + ours, first);
    result.put("seconds, " + other, second);
    results.put(name, result);
    System.err.printf(Locale.ROOT, "%s: %s %.1f, %s %.1f %s, ratio %.2f%n", name, ours, amount / one, other, amount / two, unit, two / one);
  }

  private static double median(List<Double> values) {
    return values.stream().sorted().toList().get(values.size() / 2);
  }
}
