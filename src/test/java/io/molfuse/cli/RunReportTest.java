// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.molfuse.chem.MoleculeDataset;
import io.molfuse.train.OneThread;
import java.io.BufferedWriter;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Locale;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.IntStream;
import javax.xml.parsers.DocumentBuilderFactory;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.ExtendWith;
import org.junit.jupiter.api.io.TempDir;

@ExtendWith(OneThread.class)
class RunReportTest {
  private static final ObjectMapper JSON = new ObjectMapper();

  @TempDir Path folder;

  static Path molecules(Path folder) throws IOException {
    Path file = folder.resolve("molecules.smi");
    if (!Files.exists(file)) {
      MoleculeDataset test = MoleculeDataset.bundled("moses-test-2k5", new MoleculeDataset.Options().limit(240));
      Files.write(file, IntStream.range(0, test.size()).mapToObj(test::smiles).toList());
    }
    return file;
  }

  private static Path history(Path run, String... lines) throws IOException {
    return Files.write(run.resolve(RunHistory.FILE), List.of(lines));
  }

  private static String step(long step, double loss) {
    return String.format(
        Locale.ROOT,
        "{\"event\":\"step\",\"step\":%d,\"epoch\":1,\"values\":{\"total_loss\":%.4f,\"recon_loss\":%.4f,\"kl_loss\":%.4f,"
            + "\"token_accuracy\":0.5,\"grad_norm\":null},\"learning_rate\":1.0E-4,\"samples_per_second\":300.5,"
            + "\"elapsed_seconds\":1.5,\"readings\":{\"process_memory_bytes\":1.0E9}}",
        step, loss, loss, loss);
  }

  private static String event(String event, long step, String more) {
    return "{\"event\":\"" + event + "\",\"step\":" + step + more + "}";
  }

  @Test
  void aRunAndItsResumptionAreInOneReport() throws Exception {
    Path run = folder.resolve("run");
    Object[] first = {
      "train", "--data", molecules(folder), "--preset", "tiny", "--device", "cpu", "--threads", 1, "--samples", 12, "--log-every", 1,
      "--max-steps", 10, "--output", run
    };
    Program program = Program.run(first);
    assertThat(program.code()).as(program.err()).isZero();
    assertThat(program.err()).contains("report     " + run.resolve("report.html"));
    Program more = Program.run("train", "--resume", run, "--max-steps", 12, "--device", "cpu", "--samples", 12);
    assertThat(more.code()).as(more.err()).isZero();

    JsonNode report = JSON.readTree(run.resolve("report.json").toFile());
    assertThat(report.path("ending").asText()).isEqualTo("finished");
    assertThat(report.path("sittings").asInt()).isEqualTo(2);
    assertThat(report.path("step").asInt()).isEqualTo(12);
    assertThat(report.at("/configuration/training/max_steps").asInt()).isEqualTo(12);
    assertThat(report.at("/data/training_molecules").asInt() + report.at("/data/validation_molecules").asInt()).isBetween(230, 240);
    assertThat(report.at("/model/parameters").asLong()).isPositive();
    assertThat(report.at("/generated/count").asInt()).isEqualTo(12);
    JsonNode curves = report.path("curves");
    List<Double> steps = IntStream.range(0, 10).mapToObj(i -> curves.path("train/total_loss").get(i).get(0).asDouble()).toList();
    assertThat(steps).containsExactlyElementsOf(IntStream.rangeClosed(1, 10).mapToObj(i -> (double) i).toList());
    assertThat(curves.path("learning_rate").get(0).get(1).asDouble()).isPositive();
    assertThat(curves.path("process_memory_bytes").get(0).get(1).asDouble()).isGreaterThan(1e7);
    assertThat(curves.path("validation/recon_loss").isArray()).isTrue();

    String page = Files.readString(run.resolve("report.html"));
    assertThat(page).contains("<html lang=\"en\">", "color-scheme: light dark", "prefers-color-scheme: dark", "in 2 sittings");
    for (String title : List.of("Loss", "Reconstruction loss", "Token accuracy", "Learning rate", "Throughput", "Memory")) {
      assertThat(page).contains("<title>" + title + "</title>");
    }
    // Nothing is loaded, from the network or otherwise; the only address is SVG's name.
    assertThat(page).doesNotContain("<script", "<link", "<img", "@import", "url(");
    assertThat(page.replace("http://www.w3.org/2000/svg", "")).doesNotContain("http:", "https:");
    assertThat(page).contains("<figure><svg role=\"img\" aria-label=\"Structure of ");
    Matcher charts = Pattern.compile("<svg class=\"chart\".*?</svg></svg>", Pattern.DOTALL).matcher(page);
    int count = 0;
    for (; charts.find(); count++) {
      assertThat(xml(charts.group())).isNotNull();
      assertThat(charts.group()).contains("role=\"img\"", "<desc>").doesNotContain("NaN");
    }
    assertThat(count).isGreaterThanOrEqualTo(7);
  }

  private static Object xml(String text) throws Exception {
    return DocumentBuilderFactory.newInstance().newDocumentBuilder().parse(new ByteArrayInputStream(text.getBytes(StandardCharsets.UTF_8)));
  }

  @Test
  void stepsThatAKilledSittingDidInVainDoNotCount() throws IOException {
    history(
        folder,
        event("started", 0, ""), step(1, 9), step(2, 8), step(3, 100), step(4, 100),
        event("validated", 4, ",\"values\":{\"total_loss\":50}"),
        "{\"event\":\"step\",\"step\":5,\"val",
        event("started", 2, ""), step(3, 7), event("ended", 3, ",\"ending\":\"finished\""));
    RunHistory history = RunHistory.read(folder, 100);
    assertThat(history.curve("train/total_loss")).extracting(RunHistory.Point::mean).containsExactly(9.0, 8.0, 7.0);
    assertThat(history.curve("validation/total_loss")).isEmpty();
    assertThat(history.curve("train/grad_norm")).isEmpty();
    assertThat(history.sittings()).isEqualTo(2);
    assertThat(history.step()).isEqualTo(3);
    assertThat(history.ending()).isEqualTo("finished");
  }

  @Test
  void aMillionStepsMakeASmallPage() throws IOException {
    try (BufferedWriter file = Files.newBufferedWriter(folder.resolve(RunHistory.FILE))) {
      file.write(event("started", 0, "") + "\n");
      for (long i = 20; i <= 1_000_000; i += 20) {
        file.write(step(i, 3 + Math.sin(i)) + "\n");
      }
    }
    RunHistory history = RunHistory.read(folder, RunReport.POINTS);
    List<RunHistory.Point> curve = history.curve("train/total_loss");
    assertThat(curve).hasSizeBetween(RunReport.POINTS - 1, RunReport.POINTS + 1);
    assertThat(curve.get(200).mean()).isCloseTo(3, within(0.2));
    assertThat(curve.get(200).least()).isCloseTo(2, within(0.1));
    assertThat(curve.get(200).most()).isCloseTo(4, within(0.1));
    new RunReport(folder, Preset.load(Preset.Name.TINY)).write();
    assertThat(Files.size(folder.resolve("report.html"))).isBetween(20_000L, 2_000_000L);
    assertThat(Files.size(folder.resolve("report.json"))).isLessThan(2_000_000L);
    assertThat(Files.readString(folder.resolve("report.html"))).contains("The run&#39;s end is not known (1,000,000 steps)");
  }

  @Test
  void aFailedRunIsReportedWithItsReason() throws IOException {
    Path run = folder.resolve("run");
    Program program =
        Program.run(
            "train", "--data", molecules(folder), "--preset", "tiny", "--device", "cpu", "--threads", 1, "--max-steps", 20, "--output", run,
            "--learning-rate", 1e30);
    assertThat(program.code()).isEqualTo(1);
    JsonNode report = JSON.readTree(run.resolve("report.json").toFile());
    assertThat(report.path("ending").asText()).isEqualTo("failed");
    assertThat(report.path("message").asText()).contains("so training was stopped");
    assertThat(Files.readString(run.resolve("report.html"))).contains("class=\"bad\"", "None were generated");
  }

  @Test
  void whatUsersWriteIsTextOnThePage() {
    assertThat(Html.text("<b>\"a\" & 'b'")).isEqualTo("&lt;b&gt;&quot;a&quot; &amp; &#39;b&#39;");
    assertThat(List.of(Html.number(0.00037281), Html.number(12.5), Html.number(3), Html.number(123456789.0), Html.number(0.1 + 0.2)))
        .containsExactly("3.728e-4", "12.5", "3", "1.235e8", "0.3");
  }
}
