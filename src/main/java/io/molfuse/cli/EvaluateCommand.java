// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import io.molfuse.chem.KnownMolecules;
import io.molfuse.chem.MoleculeDataset;
import io.molfuse.chem.MoleculeSet;
import io.molfuse.chem.Vocabulary;
import io.molfuse.models.Generator;
import io.molfuse.models.LatentSpace;
import io.molfuse.models.LatentStatistics;
import io.molfuse.models.Reconstruction;
import io.molfuse.models.VaeCheckpoint;
import io.molfuse.train.RunDirectory;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.Callable;
import org.bytedeco.pytorch.global.torch.DeviceType;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;

/** How good a trained model is. */
@Command(
    name = "evaluate",
    description = {
      "Measures a trained model.",
      "reconstruction: encodes molecules and decodes their latents' means: how many come back.",
      "generation: decodes latents of the prior: the metrics of MOSES, against training and reference molecules.",
      "latent: how the latent space is used, a map of it, and ways through it between molecules."
    })
final class EvaluateCommand implements Callable<Integer> {
  private static final int PAIRS_DRAWN = 12;
  private static final int DRAWN = 50;
  private static final int WAYS = 4;
  private static final int STEPS = 8;
  private static final int MOST_THREADS = 8;

  /** What is measured. */
  enum Mode {
    RECONSTRUCTION,
    GENERATION,
    LATENT;

    @Override
    public String toString() {
      return name().toLowerCase(Locale.ROOT);
    }
  }

  private final Console console;

  @Mixin private CommonOptions common;
  @Mixin private DeviceOptions device;
  @Mixin private SamplingOptions sampling;

  @Option(
      names = "--checkpoint",
      required = true,
      paramLabel = "DIR",
      description = "Output folder of a training run (its best checkpoint is taken), or one checkpoint in it.")
  private Path checkpoint;

  @Option(names = "--mode", required = true, paramLabel = "MODE", description = "One of ${COMPLETION-CANDIDATES}.")
  private Mode mode;

  @Option(
      names = "--data",
      paramLabel = "PATH",
      description =
          "SMILES file or prepared folder: molecules to encode (of a folder, its test split), or in mode generation the training molecules"
              + " (of a folder, its training split). Default: those of the model's run, to encode only ones that were not trained on.")
  private Path data;

  @Option(
      names = "--reference",
      paramLabel = "PATH",
      description =
          "In mode generation, what generated molecules should be like: SMILES file or prepared folder (its test split). Default: molecules"
              + " that the model was not trained on, where --data or its run has some.")
  private Path reference;

  @Option(
      names = {"-n", "--count"},
      paramLabel = "N",
      defaultValue = "1000",
      description = "How many molecules; of a larger data set so many are drawn (default: ${DEFAULT-VALUE}).")
  private int count;

  @Option(names = "--output", paramLabel = "DIR", description = "Write the results there as CSV and JSON, with pictures.")
  private Path output;

  @Option(names = "--json", description = "One JSON object with the figures on standard output instead of a table.")
  private boolean json;

  EvaluateCommand(Console console) {
    this.console = console;
  }

  @Override
  public Integer call() {
    if (count < 1) {
      throw new UsageException("-n must be at least 1, but is " + count);
    }
    if (reference != null && mode != Mode.GENERATION) {
      throw new UsageException("--reference is for mode generation");
    }
    sampling.options(0);
    DeviceType deviceType = device.select();
    VaeCheckpoint saved = VaeCheckpoint.open(checkpoint, RunDirectory.BEST, RunDirectory.LAST);
    ResultFolder folder = output == null ? null : ResultFolder.prepare(output);
    try (VaeCheckpoint.Loaded loaded = saved.load(deviceType)) {
      Map<String, Object> figures = new LinkedHashMap<>();
      figures.put("mode", mode.toString());
      figures.put("checkpoint", saved.directory().toString());
      EvaluationData molecules = new EvaluationData(console, loaded, configuration(saved), data);
      switch (mode) {
        case RECONSTRUCTION -> reconstruction(loaded, molecules, figures, folder);
        case GENERATION -> generation(loaded, molecules, figures, folder);
        default -> latent(loaded, molecules, figures, folder);
      }
      if (json) {
        console.json(figures);
      } else {
        table(figures);
      }
      if (folder != null) {
        folder.json(mode + ".json", figures);
        console.say("output     %s", output);
      }
    }
    return Main.SUCCESS;
  }

  /** Null for a model that was trained from Java. */
  private static Configuration configuration(VaeCheckpoint saved) {
    Path file = saved.directory().resolve(Configuration.FILE);
    if (!Files.exists(file)) {
      return null;
    }
    Setting setting = YamlSettings.parse(saved.text(Configuration.FILE), new Origin(Origin.Layer.FILE, file.toString(), 1));
    return Configuration.of(Preset.defaults().with(setting));
  }

  private void reconstruction(VaeCheckpoint.Loaded loaded, EvaluationData from, Map<String, Object> figures, ResultFolder folder) {
    TrainingData.Loaded encoded = encoded(from, figures);
    MoleculeDataset molecules = encoded.molecules();
    int[] entries = some(encoded.entries());
    Reconstruction result;
    try (WorkDisplay display = new WorkDisplay(console, mode.toString(), entries.length)) {
      result = Reconstruction.measure(loaded.model(), molecules, entries, sampling.options(0), display::done);
    }
    figures.put("molecules", result.molecules().size());
    figures.put("exact_match", JsonSteps.finite(result.exactMatch()));
    figures.put("validity", JsonSteps.finite(result.validity()));
    figures.put("token_accuracy", JsonSteps.finite(result.tokenAccuracy()));
    figures.put("at_maximum_length", result.atMaximumLength());
    figures.put("with_unknown_symbols", result.unknown());
    if (folder == null) {
      return;
    }
    List<List<?>> rows = new ArrayList<>();
    List<String> drawn = new ArrayList<>();
    List<String> captions = new ArrayList<>();
    for (Reconstruction.Molecule one : result.molecules()) {
      rows.add(
          List.of(one.smiles(), one.decoded(), one.valid(), one.exact(), one.tokens(), one.rightTokens(), one.logProbability()));
      if (drawn.size() < 2 * PAIRS_DRAWN) {
        drawn.add(one.smiles());
        drawn.add(one.valid() ? one.decoded() : "");
        captions.add("original");
        captions.add(one.exact() ? "the same" : one.valid() ? "decoded" : "no molecule");
      }
    }
    folder.csv(
        mode + ".csv", List.of("smiles", "decoded", "valid", "exact", "tokens", "right_tokens", "log_probability"), rows);
    folder.grid(mode + ".svg", drawn, captions, 4);
  }

  private void generation(VaeCheckpoint.Loaded loaded, EvaluationData from, Map<String, Object> figures, ResultFolder folder) {
    EvaluationData.Named<KnownMolecules> training = from.training();
    EvaluationData.Named<List<String>> like = from.reference(reference);
    List<String> selfies = new ArrayList<>();
    try (WorkDisplay display = new WorkDisplay(console, mode.toString(), count)) {
      new Generator(loaded.model(), loaded.vocabulary())
          .sample(
              count,
              sampling.options(1),
              batch -> {
                selfies.addAll(batch);
                display.done(selfies.size());
              });
    }
    int threads = Math.min(Runtime.getRuntime().availableProcessors(), MOST_THREADS);
    MoleculeSet compared = like == null ? null : MoleculeSet.of(like.molecules(), threads);
    GenerationFigures measured = GenerationFigures.of(selfies, training.molecules(), compared, threads);
    figures.put("novel_against", training.name());
    figures.put("reference", like == null ? "none: give --reference" : like.name());
    measured.values().forEach((name, value) -> figures.put(name, value instanceof Double number ? JsonSteps.finite(number) : value));
    if (folder != null) {
      folder.csv(mode + ".csv", GenerationFigures.COLUMNS, measured.rows());
      if (!measured.distinct().isEmpty()) {
        folder.grid(mode + ".svg", measured.distinct().stream().limit(DRAWN).toList(), List.of(), 5);
      }
    }
  }

  private void latent(VaeCheckpoint.Loaded loaded, EvaluationData from, Map<String, Object> figures, ResultFolder folder) {
    TrainingData.Loaded encoded = encoded(from, figures);
    MoleculeDataset molecules = encoded.molecules();
    int[] entries = some(encoded.entries());
    LatentStatistics result;
    try (WorkDisplay display = new WorkDisplay(console, mode.toString(), entries.length)) {
      result = LatentStatistics.measure(loaded.model(), molecules, entries, display::done);
    }
    figures.put("molecules", result.count());
    figures.put("dimensions", result.kl().length);
    figures.put("active_units", result.activeUnits());
    figures.put("kl", JsonSteps.finite(result.totalKl()));
    figures.put("mean_of_means", JsonSteps.finite(mean(result.mean())));
    figures.put("variance_of_means", JsonSteps.finite(mean(result.variance())));
    figures.put("posterior_variance", JsonSteps.finite(mean(result.posteriorVariance())));
    figures.put("explained_by_component_1", JsonSteps.finite(result.explained()[0]));
    figures.put("explained_by_component_2", JsonSteps.finite(result.explained()[1]));
    if (folder == null) {
      return;
    }
    List<List<?>> rows = new ArrayList<>();
    for (int i = 0; i < result.kl().length; i++) {
      rows.add(
          List.of(
              i,
              result.mean()[i],
              result.variance()[i],
              result.posteriorVariance()[i],
              result.kl()[i],
              result.variance()[i] > LatentStatistics.ACTIVE));
    }
    folder.csv(mode + ".csv", List.of("dimension", "mean", "variance", "posterior_variance", "kl", "active"), rows);
    double[] atoms = Arrays.stream(entries).mapToDouble(molecules::nodeCount).toArray();
    folder.text(
        mode + ".svg",
        ScatterPlot.svg(
            String.format(Locale.ROOT, "Latent means of %,d molecules", result.count()),
            String.format(Locale.ROOT, "first principal component (%.0f %% of the variance)", 100 * result.explained()[0]),
            String.format(Locale.ROOT, "second (%.0f %%)", 100 * result.explained()[1]),
            "heavy atoms",
            result.projection(),
            atoms));
    ways(loaded, molecules, entries, folder);
  }

  /** Interpolations between neighbouring entries. */
  private void ways(VaeCheckpoint.Loaded loaded, MoleculeDataset molecules, int[] entries, ResultFolder folder) {
    LatentSpace space = new LatentSpace(loaded.model());
    Generator generator = new Generator(loaded.model(), loaded.vocabulary());
    List<List<?>> rows = new ArrayList<>();
    List<String> drawn = new ArrayList<>();
    List<String> captions = new ArrayList<>();
    for (int way = 0; way < WAYS && 2 * way + 1 < entries.length; way++) {
      List<String> ends = List.of(molecules.smiles(entries[2 * way]), molecules.smiles(entries[2 * way + 1]));
      float[] both = space.encode(ends);
      int half = both.length / 2;
      float[] points =
          LatentSpace.interpolate(
              Arrays.copyOf(both, half), Arrays.copyOfRange(both, half, both.length), STEPS, LatentSpace.Path.SPHERICAL);
      List<String> decoded = generator.decode(points, sampling.options(0));
      for (int step = 0; step < STEPS; step++) {
        String smiles = GenerateCommand.smiles(decoded.get(step));
        rows.add(List.of(ends.get(0), ends.get(1), (double) step / (STEPS - 1), smiles));
        drawn.add(smiles);
        captions.add(String.format(Locale.ROOT, "%.2f", (double) step / (STEPS - 1)));
      }
    }
    if (!drawn.isEmpty()) {
      folder.csv("interpolation.csv", List.of("from", "to", "position", "smiles"), rows);
      folder.grid("interpolation.svg", drawn, captions, STEPS);
    }
  }

  private TrainingData.Loaded encoded(EvaluationData from, Map<String, Object> figures) {
    EvaluationData.Named<TrainingData.Loaded> encoded = from.heldOut();
    MoleculeDataset molecules = encoded.molecules().molecules();
    int[] entries = encoded.molecules().entries();
    long unknown =
        Arrays.stream(entries).filter(entry -> Arrays.stream(molecules.tokens(entry)).anyMatch(token -> token == Vocabulary.UNK)).count();
    if (unknown == entries.length) {
      throw new FailureException(
          "the checkpoint's vocabulary does not match the data: every molecule has symbols that it lacks");
    }
    if (unknown > 0) {
      console.say("%,d of %,d molecules have symbols that the checkpoint's vocabulary lacks", unknown, entries.length);
    }
    figures.put("data", encoded.name());
    return encoded.molecules();
  }

  /** All entries, or so many drawn by the seed. */
  private int[] some(int[] all) {
    if (all.length <= count) {
      return all;
    }
    int[] entries = all.clone();
    Random random = new Random(sampling.seed());
    for (int i = 0; i < count; i++) {
      int other = i + random.nextInt(entries.length - i);
      int entry = entries[other];
      entries[other] = entries[i];
      entries[i] = entry;
    }
    return Arrays.copyOf(entries, count);
  }

  private void table(Map<String, Object> figures) {
    figures.forEach(
        (name, value) -> {
          String text =
              value == null ? "-" : value instanceof Double number ? String.format(Locale.ROOT, "%.4f", number) : value.toString();
          console.out().printf(Locale.ROOT, "%-28s %s%n", name.replace('_', ' '), text);
        });
    console.flush();
  }

  private static double mean(double[] values) {
    return Arrays.stream(values).average().orElse(Double.NaN);
  }
}
