// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.PrintStream;
import java.io.StringWriter;
import java.net.URL;
import java.net.URLClassLoader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import javax.tools.JavaCompiler;
import javax.tools.ToolProvider;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** The programs that the documentation shows compile and run. */
class DocumentedExamplesTest {
  private static final Pattern PROGRAM = Pattern.compile("```java\n(.*?public class (\\w+) .*?)```", Pattern.DOTALL);

  private static final int MOST_LINES = 60;

  @TempDir Path folder;

  private List<String> compiled(Path page) throws IOException {
    List<String> names = new ArrayList<>();
    Matcher matcher = PROGRAM.matcher(Files.readString(page));
    JavaCompiler compiler = ToolProvider.getSystemJavaCompiler();
    String classpath = System.getProperty("surefire.test.class.path", System.getProperty("java.class.path"));
    while (matcher.find()) {
      Path source = folder.resolve(matcher.group(2) + ".java");
      Files.writeString(source, matcher.group(1));
      StringWriter messages = new StringWriter();
      List<String> options = List.of("-proc:none", "-d", folder.toString(), "-cp", classpath);
      try (var files = compiler.getStandardFileManager(null, null, StandardCharsets.UTF_8)) {
        boolean ok = compiler.getTask(messages, files, null, options, null, files.getJavaFileObjects(source)).call();
        assertThat(ok).as("%s of %s: %s", source.getFileName(), page, messages).isTrue();
      }
      names.add(matcher.group(2));
    }
    return names;
  }

  private String output(String program, String... args) throws Exception {
    PrintStream before = System.out;
    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    try (URLClassLoader loader = new URLClassLoader(new URL[] {folder.toUri().toURL()}, getClass().getClassLoader())) {
      System.setOut(new PrintStream(bytes, true, StandardCharsets.UTF_8));
      loader.loadClass(program).getMethod("main", String[].class).invoke(null, (Object) args);
    } finally {
      System.setOut(before);
    }
    return bytes.toString(StandardCharsets.UTF_8);
  }

  @Test
  void thoseAboutTrainingRun() throws Exception {
    assertThat(compiled(Path.of("docs/training.md"))).contains("MixedPrecision", "Layers");
    List<Double> losses =
        Pattern.compile("step \\d+: loss (\\S+), scale \\d+")
            .matcher(output("MixedPrecision"))
            .results()
            .map(line -> Double.parseDouble(line.group(1)))
            .toList();
    assertThat(losses).hasSize(4);
    assertThat(losses.get(3)).isLessThan(0.5 * losses.get(0));
    assertThat(output("Layers")).contains("gradients of 6 layers, 0 pieces left");
    assertThat(Files.readAllLines(folder.resolve("WholeLoop.java"))).hasSizeLessThan(MOST_LINES);
    List<String> straight = output("WholeLoop", folder.resolve("a").toString(), "300").lines().toList();
    assertThat(straight).hasSize(3);
    assertThat(loss(straight.get(2))).isLessThan(0.5 * loss(straight.get(0)));
    // In three sittings, the second of which ends in the middle of an epoch.
    List<String> sittings = new ArrayList<>();
    for (String steps : List.of("80", "204", "300")) {
      sittings.addAll(output("WholeLoop", folder.resolve("b").toString(), steps).lines().toList());
    }
    assertThat(sittings).isEqualTo(straight);
  }

  private static double loss(String line) {
    return Double.parseDouble(line.substring(line.lastIndexOf(' ') + 1));
  }

  @Test
  void thoseOfTheReadmeRun() throws Exception {
    assertThat(compiled(Path.of("README.md"))).containsExactly("Example", "LossScale", "FlatMemory");
    // The scale fell from 65536 until the gradients fitted, and the good steps since are too few for it to grow.
    String scale = output("LossScale").strip();
    assertThat(Double.parseDouble(scale.substring("scale ".length()))).isBetween(1.0, 65536.0);
    assertThat(output("FlatMemory").strip()).isEqualTo("native objects left by 1000 steps: 0");
  }

  @Test
  void thoseAboutMoleculesRun() throws Exception {
    assertThat(compiled(Path.of("docs/molecules.md"))).containsExactly("Train", "Generate", "Evaluate", "Interpolate");
    Path run = folder.resolve("run");
    String before = System.getProperty("run");
    System.setProperty("run", run.toString());
    try {
      assertThat(output("Train")).startsWith("checkpoint step-00000060");
      assertThat(output("Generate").lines()).hasSize(6).last().isEqualTo("5 by beam search");
      assertThat(output("Evaluate"))
          .containsPattern("exact match \\d\\.\\d+, token accuracy 0\\.[0-9]*[1-9]")
          .containsPattern("\\d+ of 32 units active, KL \\d")
          .containsPattern("validity (1\\.0|0\\.[89])\\d+, uniqueness 0?1?\\.\\d+, novelty");
      assertThat(output("Interpolate").lines()).hasSize(6);
      assertThat(run.resolve("way.svg")).isNotEmptyFile();
    } finally {
      if (before == null) {
        System.clearProperty("run");
      } else {
        System.setProperty("run", before);
      }
    }
  }
}
