// SPDX-License-Identifier: Apache-2.0
package io.molfuse.benchmarks;

import io.molfuse.chem.GraphBatch;
import io.molfuse.chem.MoleculeDataset;
import io.molfuse.chem.MoleculeStream;
import io.molfuse.models.ModelConfig;
import io.molfuse.models.MolecularVae;
import io.molfuse.models.MoleculeBatches;
import io.molfuse.models.StagedBatch;
import io.molfuse.models.VaeBatch;
import io.molfuse.models.VaeTask;
import io.molfuse.ops.Molfuse;
import io.molfuse.ops.Reparameterize;
import io.molfuse.train.AdamW;
import io.molfuse.train.BatchSource;
import io.molfuse.train.Checkpointing;
import io.molfuse.train.DataLoader;
import io.molfuse.train.LearningRateSchedule;
import io.molfuse.train.Losses;
import io.molfuse.train.ParameterSet;
import io.molfuse.train.Seeds;
import io.molfuse.train.StagingRing;
import io.molfuse.train.Trainer;
import io.molfuse.train.TrainingConfig;
import io.molfuse.train.TrainingTask;
import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.BitSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import org.bytedeco.javacpp.Pointer;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.AdamWOptions;
import org.bytedeco.pytorch.CompilationUnit;
import org.bytedeco.pytorch.Device;
import org.bytedeco.pytorch.Function;
import org.bytedeco.pytorch.Graph;
import org.bytedeco.pytorch.IValue;
import org.bytedeco.pytorch.IValueVector;
import org.bytedeco.pytorch.NoGradGuard;
import org.bytedeco.pytorch.QualifiedName;
import org.bytedeco.pytorch.Symbol;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorVector;
import org.bytedeco.pytorch.Value;
import org.bytedeco.pytorch.ValueVector;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch.DeviceType;

/**
 * What surrounds the model in a training step, each against what it replaces or could at best be: ratios within this process, medians of
 * rounds that alternate. Prints a table. Options: --quick, and --only with a part of the name of one of loaders, optimizers, loops, calls
 * and checkpointing.
 */
@SuppressWarnings("try") // A scope does its work by being open.
public final class Training {
  private static final com.sun.management.ThreadMXBean THREADS =
      (com.sun.management.ThreadMXBean) ManagementFactory.getThreadMXBean();
  private static final int BATCH = 64;

  /** Calls in a row without Java in between. */
  private static final int CHAIN = 500;

  private final int rounds;
  private final boolean quick;
  private final List<String> rows = new ArrayList<>();
  private final MoleculeDataset.Options options;

  private Training(boolean quick) {
    this.quick = quick;
    rounds = quick ? 3 : 9;
    options = new MoleculeDataset.Options().limit(quick ? 2_000 : 10_000);
  }

  /** Some part of a benchmark, in seconds. */
  private interface Timed {
    double seconds() throws Exception;
  }

  /** One of the benchmarks. */
  private interface Part {
    void run() throws Exception;
  }

  public static void main(String[] args) throws Exception {
    List<String> given = Arrays.asList(args);
    int only = given.indexOf("--only");
    Molfuse.load();
    Training training = new Training(given.contains("--quick"));
    Map<String, Part> parts = new LinkedHashMap<>();
    parts.put("loaders", training::loaders);
    parts.put("optimizers", training::optimizers);
    parts.put("loops", training::loops);
    parts.put("calls", training::calls);
    parts.put("checkpointing", training::checkpointing);
    for (Map.Entry<String, Part> part : parts.entrySet()) {
      if (only < 0 || part.getKey().contains(given.get(only + 1))) {
        part.getValue().run();
      }
    }
    System.out.printf(
        "%d threads, %s at %s%n%n| what | measured |%n|---|---|%n%s%n",
        torch.get_num_threads(),
        Molfuse.capabilities().cpuVectorLevel(),
        System.getProperty("molfuse.commit", "unknown"),
        String.join("\n", training.rows));
  }

  private void row(String what, String format, Object... values) {
    rows.add("| " + what + " | " + String.format(Locale.ROOT, format, values) + " |");
    System.err.println(rows.get(rows.size() - 1));
  }

  /** Medians of the seconds of each, measured in turn. */
  private Map<String, Double> medians(Map<String, Timed> all) throws Exception {
    Map<String, List<Double>> seconds = new LinkedHashMap<>();
    for (int round = 0; round <= rounds; round++) {
      for (Map.Entry<String, Timed> each : all.entrySet()) {
        double one = each.getValue().seconds();
        // The first round is for warming up.
        if (round > 0) {
          seconds.computeIfAbsent(each.getKey(), key -> new ArrayList<>()).add(one);
        }
      }
    }
    Map<String, Double> medians = new LinkedHashMap<>();
    seconds.forEach((name, values) -> medians.put(name, values.stream().sorted().toList().get(values.size() / 2)));
    return medians;
  }

  private static double timed(Runnable work) {
    long start = System.nanoTime();
    work.run();
    return (System.nanoTime() - start) * 1e-9;
  }

  /** Batches that are parsed as they are needed, by a consumer that takes as long for each as one thread needs to make it. */
  private void loaders() throws Exception {
    MoleculeStream molecules = MoleculeStream.bundled("moses-25k", options);
    BitSet all = new BitSet();
    all.set(0, molecules.size());
    List<MoleculeStream.Entry> some = new ArrayList<>();
    try (MoleculeStream.Reader reader = molecules.read(all)) {
      while (some.size() < BATCH) {
        some.add(reader.next());
      }
    }
    for (int i = 0; i < 20; i++) {
      molecules.collate(some);
    }
    int batches = molecules.size() / BATCH;
    double making = timed(() -> molecules.collate(some));
    for (int i = 0; i < 20; i++) {
      making = Math.min(making, timed(() -> molecules.collate(some)));
    }
    long consuming = Math.round(making * 1e9);
    Map<String, Timed> ways = new LinkedHashMap<>();
    ways.put("consumer alone", () -> timed(() -> {
      for (int i = 0; i < batches; i++) {
        spend(consuming);
      }
    }));
    ways.put("0 workers", () -> timed(() -> {
      try (MoleculeStream.Reader reader = molecules.read(all)) {
        for (int i = 0; i < batches; i++) {
          List<MoleculeStream.Entry> batch = new ArrayList<>(BATCH);
          while (batch.size() < BATCH) {
            batch.add(reader.next());
          }
          molecules.collate(batch);
          spend(consuming);
        }
      }
    }));
    for (int workers = 1; workers <= 2; workers++) {
      int threads = workers;
      ways.put(workers + " workers", () -> loaded(molecules, all, batches, threads, consuming));
    }
    Map<String, Double> seconds = medians(ways);
    for (String way : List.of("0 workers", "1 workers", "2 workers")) {
      row("batches parsed with " + way + ", speed over the consumer's own", "%.2f", seconds.get("consumer alone") / seconds.get(way));
    }
  }

  private static double loaded(MoleculeStream molecules, BitSet all, int batches, int workers, long consuming) throws Exception {
    try (Device cpu = new Device(DeviceType.CPU);
        StagingRing ring = new StagingRing(cpu, workers + 1);
        DataLoader<StagedBatch> loader = MoleculeBatches.streamed(molecules, all, BATCH, 1, 1, ring).workers(workers).build()) {
      long start = System.nanoTime();
      for (int i = 0; i < batches; i++) {
        loader.batch(i).close();
        spend(consuming);
      }
      return (System.nanoTime() - start) * 1e-9;
    }
  }

  /** Computes for so long on this thread. */
  private static void spend(long nanos) {
    long end = System.nanoTime() + nanos;
    while (System.nanoTime() < end) {
      Thread.onSpinWait();
    }
  }

  private ModelConfig tenLayers() {
    int channels = quick ? 32 : 256;
    return new ModelConfig(
        new ModelConfig.Encoder(10, 8, 8, channels, 0.1),
        new ModelConfig.Latent(1, 128, 8, 0.1),
        new ModelConfig.Decoder(6, 8, 256, 1024, 128, 127, 0.1));
  }

  private void optimizers() throws Exception {
    try (MolecularVae model = new MolecularVae(tenLayers(), 40, 1);
        PointerScope scope = new PointerScope()) {
      TensorVector tensors = new TensorVector();
      model.parameters().parameters().forEach(
          each -> {
            each.tensor().mutable_grad().put(torch.randn_like(each.tensor()));
            tensors.push_back(each.tensor());
          });
      AdamWOptions settings = new AdamWOptions(1e-4);
      settings.weight_decay().put(0.01);
      org.bytedeco.pytorch.AdamW preset = new org.bytedeco.pytorch.AdamW(tensors, settings);
      try (AdamW fused = new AdamW(model.parameters(), Map.of(), 0.01)) {
        Map<String, Timed> ways = new LinkedHashMap<>();
        ways.put("fused", () -> timed(() -> {
          try (PointerScope step = new PointerScope()) {
            fused.clipGradients(1);
            fused.step(1e-4);
          }
        }));
        ways.put("preset", () -> timed(() -> {
          try (PointerScope step = new PointerScope()) {
            torch.clip_grad_norm_(tensors, 1);
            preset.step();
          }
        }));
        Map<String, Double> seconds = medians(ways);
        double millions = model.parameters().count() * 1e-6;
        row(
            String.format(Locale.ROOT, "clip and AdamW of %.0f million parameters, the preset's time over the fused", millions),
            "%.2f (%.1f ms)",
            seconds.get("preset") / seconds.get("fused"),
            seconds.get("fused") * 1e3);
      }
    }
  }

  private static ModelConfig small() {
    return new ModelConfig(
        new ModelConfig.Encoder(3, 3, 4, 32, 0),
        new ModelConfig.Latent(1, 64, 4, 0.1),
        new ModelConfig.Decoder(3, 4, 128, 512, 128, 64, 0));
  }

  private static TrainingConfig config(long steps) {
    LearningRateSchedule constant = new LearningRateSchedule(LearningRateSchedule.Kind.CONSTANT, 0, 1);
    return new TrainingConfig(0, steps, 0, 1e-4, Map.of(), constant, 0.01, 1, 1, 0, 1e9, 1);
  }

  /** The same batches again and again, so that nothing but the loop differs. */
  private static BatchSource<GraphBatch> batches(List<GraphBatch> made) {
    return new BatchSource<>() {
      @Override
      public long batchesPerEpoch() {
        return made.size();
      }

      @Override
      public GraphBatch batch(long index) {
        return made.get((int) (index % made.size()));
      }
    };
  }

  /** Does nothing but count what its thread allocates. */
  private static final class Counting implements TrainingTask<GraphBatch> {
    private final TrainingTask<GraphBatch> task;
    private long steps;
    private long bytesAtFirst;
    private long bytes;

    Counting(TrainingTask<GraphBatch> task) {
      this.task = task;
    }

    @Override
    public ParameterSet parameters() {
      return task.parameters();
    }

    @Override
    public Losses train(GraphBatch batch, long seed) {
      bytes = THREADS.getCurrentThreadAllocatedBytes();
      if (steps++ == 0) {
        bytesAtFirst = bytes;
      }
      return task.train(batch, seed);
    }

    @Override
    public Losses evaluate(GraphBatch batch, long seed) {
      return task.evaluate(batch, seed);
    }

    @Override
    public int samples(GraphBatch batch) {
      return task.samples(batch);
    }

    long bytesPerStep() {
      return (bytes - bytesAtFirst) / (steps - 1);
    }
  }

  private void loops() throws Exception {
    MoleculeDataset molecules = MoleculeDataset.bundled("moses-25k", options);
    List<GraphBatch> made = new ArrayList<>();
    MoleculeBatches source = new MoleculeBatches(molecules, molecules.entries(), BATCH, true, 1);
    for (int i = 0; i < 16; i++) {
      made.add(source.batch(i));
    }
    int steps = quick ? 10 : 40;
    long[] perStep = new long[1];
    try (MolecularVae model = new MolecularVae(small(), molecules.vocabulary().size(), 1)) {
      VaeTask task = new VaeTask(model, 1e-4);
      Map<String, Timed> ways = new LinkedHashMap<>();
      ways.put("trainer", () -> {
        Counting counting = new Counting(task);
        try (Trainer<GraphBatch> trainer = new Trainer<>(counting, batches(made), config(steps))) {
          double seconds = timed(trainer::run);
          perStep[0] = counting.bytesPerStep();
          return seconds;
        }
      });
      ways.put("bare", () -> {
        try (AdamW optimizer = new AdamW(model.parameters(), Map.of(), 0.01)) {
          return timed(() -> {
            for (int i = 0; i < steps; i++) {
              try (PointerScope step = new PointerScope()) {
                model.parameters().dropGradients();
                Losses losses = task.train(made.get(i % made.size()), Seeds.mix(1, i, 0));
                losses.total().backward();
                optimizer.clipGradients(1);
                losses.read();
                optimizer.step(1e-4);
              }
            }
          });
        }
      });
      Map<String, Double> seconds = medians(ways);
      row(
          "a step of the trainer over one of a hand-written loop",
          "%.3f (%.1f ms)",
          seconds.get("trainer") / seconds.get("bare"),
          seconds.get("trainer") / steps * 1e3);
      row("Java heap that the trainer's thread allocates in a step, the model's calls included", "%.1f kB", perStep[0] * 1e-3);
    }
  }

  /** So many calls of an operator, one on the result of the other. */
  private static Graph chain() {
    Graph graph = new Graph();
    Value out = graph.addInput("mean");
    Value logVar = graph.addInput("log_var");
    Value seed = graph.insertConstant(new IValue(1L));
    Symbol operator = Symbol.fromQualString("molfuse::reparameterize");
    for (int i = 0; i < CHAIN; i++) {
      Value offset = graph.insertConstant(new IValue((long) i));
      out = graph.insertNode(graph.create(operator, new ValueVector(out, logVar, seed, offset), 1)).output();
    }
    graph.registerOutput(out);
    return graph;
  }

  /** One fused operator on tensors so small that only the call counts, from Java and from libtorch's own interpreter. */
  private void calls() throws Exception {
    int count = quick ? 20_000 : 100_000;
    try (PointerScope scope = new PointerScope();
        NoGradGuard noGrad = new NoGradGuard()) {
      Tensor mean = torch.zeros(1, 4);
      Tensor logVar = torch.zeros(1, 4);
      CompilationUnit unit = new CompilationUnit();
      Function chain = unit.create_function(new QualifiedName("chain"), chain());
      long[] bytes = new long[1];
      Map<String, Timed> ways = new LinkedHashMap<>();
      ways.put("java", () -> {
        long before = THREADS.getCurrentThreadAllocatedBytes();
        double seconds = timed(() -> {
          for (int i = 0; i < count; i++) {
            try (PointerScope call = new PointerScope()) {
              Reparameterize.apply(mean, logVar, 1, i);
            }
          }
        });
        bytes[0] = (THREADS.getCurrentThreadAllocatedBytes() - before) / count;
        return seconds;
      });
      ways.put("c++", () -> timed(() -> {
        try (PointerScope call = new PointerScope()) {
          for (int i = 0; i < count; i += CHAIN) {
            chain.run(new IValueVector(new IValue(mean), new IValue(logVar)));
          }
        }
      }));
      Map<String, Double> seconds = medians(ways);
      double java = seconds.get("java") / count * 1e9;
      double cpp = seconds.get("c++") / count * 1e9;
      row("a call of a fused operator from Java, with its scope, and from C++", "%.0f ns and %.0f ns", java, cpp);
      row("Java heap that such a call allocates", "%d bytes", bytes[0]);
    }
  }

  private void checkpointing() throws Exception {
    MoleculeDataset molecules = MoleculeDataset.bundled("moses-25k", options);
    GraphBatch batch = new MoleculeBatches(molecules, molecules.entries(), BATCH, true, 1).batch(0);
    int layers = 10;
    ModelConfig config =
        new ModelConfig(
            new ModelConfig.Encoder(layers, 8, 8, quick ? 16 : 64, 0.1),
            new ModelConfig.Latent(1, 64, 4, 0.1),
            new ModelConfig.Decoder(1, 4, 64, 64, 128, 64, 0.1));
    try (MolecularVae model = new MolecularVae(config, molecules.vocabulary().size(), 1)) {
      double[] mebibytes = new double[2];
      for (int round = 0; round < 2; round++) {
        for (int twice = 0; twice < 2; twice++) {
          model.checkpointing(twice == 1);
          mebibytes[twice] = peak(model, batch);
        }
      }
      row(
          "most memory of a loss and its gradients, " + layers + " encoder layers, computed twice over kept",
          "%.2f (%.0f and %.0f MiB)",
          mebibytes[1] / mebibytes[0],
          mebibytes[1],
          mebibytes[0]);
    }
  }

  /** MiB by which the resident set's peak rises; needs Linux. */
  private static double peak(MolecularVae model, GraphBatch batch) throws IOException {
    Pointer.trimMemory();
    Files.writeString(Path.of("/proc/self/clear_refs"), "5");
    double before = status("VmRSS:");
    try (PointerScope scope = new PointerScope()) {
      model.parameters().dropGradients();
      Checkpointing.backward(model.loss(VaeBatch.of(batch), 1e-4, 1).total());
    }
    return (status("VmHWM:") - before) / 1024;
  }

  private static double status(String field) throws IOException {
    for (String line : Files.readAllLines(Path.of("/proc/self/status"))) {
      if (line.startsWith(field)) {
        return Double.parseDouble(line.substring(field.length()).replace("kB", "").trim());
      }
    }
    throw new IOException("no " + field);
  }
}
