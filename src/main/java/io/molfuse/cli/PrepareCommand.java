// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import io.molfuse.chem.MoleculePreparation;
import io.molfuse.chem.PreparationReport;
import io.molfuse.train.RunDirectory;
import java.io.UncheckedIOException;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;

/** A training set from SMILES and CSV files. */
@Command(
    name = "prepare",
    sortOptions = false,
    description = {
      "Makes a training set: takes off salts and charges, filters, drops copies, splits, and writes record files and a report.",
      "Called again after a stop or a kill, it goes on where it was."
    })
final class PrepareCommand implements Callable<Integer> {
  private final Console console;

  @Mixin private CommonOptions common;

  @Parameters(
      arity = "1..*",
      paramLabel = "INPUT",
      description = "SMILES files (.smi), tables (.csv, .tsv), each also gzipped, or folders of them.")
  private List<Path> inputs;

  @Option(names = "--output", required = true, paramLabel = "DIR", description = "Folder for the training set.")
  private Path output;

  @Option(
      names = "--column",
      paramLabel = "NAME",
      description = "Column of SMILES in tables (default: smiles, canonical_smiles, molecule or structure).")
  private String column;

  @Option(names = "--name-column", paramLabel = "NAME", description = "Column of names in tables, for the SMILES files written.")
  private String nameColumn;

  @Option(
      names = "--elements",
      split = ",",
      paramLabel = "E",
      defaultValue = "H,C,N,O,S,P,F,Cl,Br,I",
      description = "Elements that molecules may hold (default: ${DEFAULT-VALUE}).")
  private List<String> elements;

  @Option(
      names = "--min-weight",
      paramLabel = "W",
      defaultValue = "100",
      description = "Least weight in g/mol (default: ${DEFAULT-VALUE}).")
  private double minWeight;

  @Option(
      names = "--max-weight",
      paramLabel = "W",
      defaultValue = "600",
      description = "Most weight in g/mol (default: ${DEFAULT-VALUE}).")
  private double maxWeight;

  @Option(
      names = "--max-length",
      paramLabel = "N",
      defaultValue = "128",
      description = "Most tokens of a molecule, start and end among them (default: ${DEFAULT-VALUE}).")
  private int maxLength;

  @Option(names = "--val", paramLabel = "SHARE", defaultValue = "0.1", description = "Share for validation (default: ${DEFAULT-VALUE}).")
  private double val;

  @Option(names = "--test", paramLabel = "SHARE", defaultValue = "0.1", description = "Share for tests (default: ${DEFAULT-VALUE}).")
  private double test;

  @Option(names = "--keep-salts", description = "Keep all fragments of a molecule.")
  private boolean keepSalts;

  @Option(names = "--keep-charges", description = "Keep charges as they are.")
  private boolean keepCharges;

  @Option(names = "--threads", paramLabel = "N", description = "Threads that parse (default: the number of processors).")
  private Integer threads;

  @Option(names = "--overwrite", description = "Begin anew where molecules were prepared before, or began to be.")
  private boolean overwrite;

  @Option(names = "--json", description = "One JSON object at the end.")
  private boolean json;

  PrepareCommand(Console console) {
    this.console = console;
  }

  @Override
  public Integer call() {
    MoleculePreparation.Options options = options();
    try (RunDirectory lock = RunDirectory.prepare(output)) {
      if (!lock.tryLock()) {
        throw new FailureException(output + " is in use by another run");
      }
      return run(new MoleculePreparation(inputs, output, options));
    } catch (UncheckedIOException e) {
      throw new FailureException(e.getMessage());
    }
  }

  private MoleculePreparation.Options options() {
    MoleculePreparation.Options options = new MoleculePreparation.Options();
    try {
      options
          .column(column)
          .nameColumn(nameColumn)
          .elements(elements)
          .weight(minWeight, maxWeight)
          .maxLength(maxLength)
          .split(val, test)
          .keepSalts(keepSalts)
          .keepCharges(keepCharges)
          .overwrite(overwrite)
          .recommend(molecules -> Preset.forData((int) Math.min(molecules, Integer.MAX_VALUE)).toString());
      return threads == null ? options : options.threads(threads);
    } catch (IllegalArgumentException e) {
      throw new UsageException(e.getMessage());
    }
  }

  private int run(MoleculePreparation preparation) {
    if (preparation.resumes()) {
      console.say("going on with what was begun in %s", output);
    }
    PreparationReport report;
    Shutdown.stopBy(preparation::requestStop);
    try (PrepareDisplay display = PrepareDisplay.choose(console)) {
      report = preparation.listener(display).run();
    } finally {
      Shutdown.stopBy(null);
    }
    if (report == null) {
      console.say("stopped; the same command goes on where it was");
      return Main.INTERRUPTED;
    }
    console.say("%s", report.summary());
    report.rejected().forEach(
        (reason, count) -> {
          console.say("  not kept: %s: %,d", reason.text(), count);
          report.examples(reason).stream().limit(1).forEach(example -> console.say("    %s", example));
        });
    console.say("report     %s", output.resolve("report.html"));
    console.say("preset     %s", report.recommendedPreset());
    if (json) {
      console.json(finishedLine(report));
    }
    return Main.SUCCESS;
  }

  private Map<String, Object> finishedLine(PreparationReport report) {
    Map<String, Object> line = new LinkedHashMap<>();
    line.put("event", "finished");
    line.put("output", output.toString());
    line.put("records", report.records());
    line.put("kept", report.kept());
    Map<String, Long> rejected = new LinkedHashMap<>();
    report.rejected().forEach((reason, count) -> rejected.put(reason.text(), count));
    line.put("rejected", rejected);
    line.put("preset", report.recommendedPreset());
    return line;
  }
}
