// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.zip.GZIPInputStream;
import org.junit.jupiter.api.Test;

/**
 * Equality with the Python package selfies on more strings than a repository should hold: of its results only digests are kept.
 * scripts/chem/make_selfies_digests.py makes them and describes the lines; this class repeats what it does.
 */
class SelfiesDigestTest {
  private static final String ERROR = "<error>";
  private static final int BLOCK = 500;

  /** Of the random strings, one in so many is given to CDK, which takes longer than all else here. */
  private static final int CHECKED = 20;

  private int molecules;
  private int strings;
  private int errors;

  @Test
  void equalsThePythonPackage() throws IOException {
    List<String> differences = new ArrayList<>();
    List<Section> sections = new ArrayList<>();
    for (String row : lines("selfies-digests.tsv")) {
      String[] columns = row.split("\t");
      if (columns[0].equals("section")) {
        sections.add(new Section(columns));
        continue;
      }
      Section section = sections.get(sections.size() - 1);
      assertThat(columns[1]).isEqualTo(section.name);
      int first = Integer.parseInt(columns[2]);
      String text = section.block(first);
      if (!digest(text).equals(columns[3])) {
        Path file = Path.of("target", "selfies-" + section.name + "-" + first + ".tsv");
        Files.writeString(file, text);
        differences.add(file + " differs from make_selfies_digests.py --show " + section.name + " " + first);
      }
    }
    assertThat(differences).isEmpty();
    assertThat(molecules).isGreaterThan(50_000);
    assertThat(strings).isGreaterThan(15_000);
    assertThat(errors).isGreaterThan(500);
  }

  private static List<String> lines(String resource) throws IOException {
    InputStream raw = SelfiesDigestTest.class.getResourceAsStream(resource);
    InputStream in = resource.endsWith(".gz") ? new GZIPInputStream(raw) : raw;
    try (BufferedReader reader = new BufferedReader(new InputStreamReader(in, StandardCharsets.US_ASCII))) {
      return reader.lines().filter(line -> !line.isBlank() && !line.startsWith("#")).map(String::strip).toList();
    }
  }

  private static String digest(String text) {
    try {
      byte[] hash = MessageDigest.getInstance("SHA-256").digest(text.getBytes(StandardCharsets.US_ASCII));
      return HexFormat.of().formatHex(hash, 0, 8);
    } catch (NoSuchAlgorithmException e) {
      throw new AssertionError(e);
    }
  }

  private static SelfiesConstraints constraints(String text) {
    if (!text.contains("=")) {
      return SelfiesConstraints.preset(text);
    }
    Map<String, Integer> map = new LinkedHashMap<>();
    for (String entry : text.split(",")) {
      int equals = entry.indexOf('=');
      map.put(entry.substring(0, equals), Integer.valueOf(entry.substring(equals + 1)));
    }
    return SelfiesConstraints.of(map);
  }

  /** Knuth's 64-bit linear congruential generator (MMIX); the low half, which repeats soon, is not used. */
  private static final class Draw {
    private long state;

    Draw(long seed) {
      state = seed;
    }

    int below(int bound) {
      state = state * 6364136223846793005L + 1442695040888963407L;
      return (int) ((state >>> 33) % bound);
    }
  }

  private final class Section {
    final String name;
    final Selfies codec;
    final String[] alphabet;

    /** Whether every string of the alphabet's symbols is a molecule that CDK must accept. */
    final boolean robust;

    final List<String> inputs;
    final int count;

    Section(String[] columns) throws IOException {
      name = columns[1];
      codec = Selfies.with(constraints(columns[3]));
      alphabet = columns[4].split(" ");
      robust = Arrays.asList(alphabet).equals(List.copyOf(codec.constraints().robustAlphabet()));
      inputs = columns[2].equals("molecules") ? molecules(columns[5]) : null;
      count = inputs == null ? Integer.parseInt(columns[5]) : inputs.size();
    }

    private List<String> molecules(String source) throws IOException {
      return lines((source.startsWith("moses") ? source + ".smi.gz" : "selfies-" + source + ".smi"));
    }

    String block(int first) {
      StringBuilder text = new StringBuilder(1 << 16);
      for (int number = first; number < Math.min(first + BLOCK, count); number++) {
        List<String> line = line(number);
        errors += line.contains(ERROR) ? 1 : 0;
        text.append(String.join("\t", line)).append('\n');
      }
      return text.toString();
    }

    private List<String> line(int number) {
      Draw draw = new Draw(number);
      draw.below(1);
      List<String> line = new ArrayList<>();
      if (inputs == null) {
        StringBuilder text = new StringBuilder();
        for (int left = 1 + draw.below(60); left > 0; left--) {
          text.append(alphabet[draw.below(alphabet.length)]);
        }
        thereAndBack(text.toString(), line);
        strings++;
        if (robust && name.equals("robust") && number % CHECKED == 0 && !line.get(1).isEmpty()) {
          assertThat(Chemistry.fault(line.get(1))).as(line.get(0)).isEmpty();
        }
        return line;
      }
      String smiles = inputs.get(number);
      line.add(smiles);
      String selfies = encode(smiles, true);
      if (selfies.equals(ERROR)) {
        selfies = encode(smiles, false);
      }
      line.add(selfies);
      if (!selfies.equals(ERROR)) {
        line.add(decode(selfies));
        thereAndBack(mutated(draw, Selfies.split(selfies)), line);
        molecules += 2;
      }
      return line;
    }

    private String mutated(Draw draw, List<String> original) {
      List<String> symbols = new ArrayList<>(original);
      for (int left = 1 + draw.below(4); left > 0; left--) {
        int choice = draw.below(3);
        int at = draw.below(symbols.size() + 1);
        if (choice == 0 && at < symbols.size()) {
          symbols.remove(at);
        } else if (choice == 1 && at < symbols.size()) {
          symbols.set(at, alphabet[draw.below(alphabet.length)]);
        } else {
          symbols.add(at, alphabet[draw.below(alphabet.length)]);
        }
      }
      return String.join("", symbols);
    }

    private void thereAndBack(String selfies, List<String> line) {
      line.add(selfies);
      String decoded = decode(selfies);
      line.add(decoded);
      String again = decoded.isEmpty() || decoded.equals(ERROR) ? "" : encode(decoded, true);
      line.add(again);
      line.add(again.isEmpty() || again.equals(ERROR) ? "" : decode(again));
      if (robust && inputs == null) {
        // What random symbols give is a molecule that the constraints allow.
        assertThat(line).as(name).doesNotContain(ERROR);
      }
    }

    private String encode(String smiles, boolean strict) {
      try {
        return codec.encode(smiles, strict);
      } catch (SelfiesException e) {
        return ERROR;
      }
    }

    private String decode(String selfies) {
      try {
        return codec.decode(selfies);
      } catch (SelfiesException e) {
        return ERROR;
      }
    }
  }
}
