// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.util.ArrayList;
import java.util.List;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class MoleculeParserTest {
  private final MoleculeParser parser = new MoleculeParser();

  /** Number, degree, charge, hybridisation, aromatic, unpaired electrons of each atom. */
  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      value = {
        "CCO           | 6 1 0 4 0 0; 6 2 0 4 0 0; 8 1 0 4 0 0",
        "C#N           | 6 1 0 2 0 0; 7 1 0 2 0 0",
        "CC(=O)N       | 6 1 0 4 0 0; 6 3 0 3 0 0; 8 1 0 3 0 0; 7 1 0 3 0 0",
        "c1ccoc1       | 6 2 0 3 1 0; 6 2 0 3 1 0; 6 2 0 3 1 0; 8 2 0 3 1 0; 6 2 0 3 1 0",
        "[NH4+]        | 7 0 1 4 0 0",
        "[CH3]         | 6 0 0 4 0 1",
        "[O]O          | 8 1 0 4 0 1; 8 1 0 4 0 0",
        "FS(F)(F)(F)(F)F | 9 1 0 4 0 0; 16 6 0 6 0 0; 9 1 0 4 0 0; 9 1 0 4 0 0; 9 1 0 4 0 0; 9 1 0 4 0 0; 9 1 0 4 0 0",
        "[H][C]([H])[H] | 6 0 0 4 0 1",
        "[Na+].[Cl-]   | 11 0 1 1 0 0; 17 0 -1 4 0 0",
      })
  void nodeFeatures(String smiles, String expected) {
    MoleculeGraph graph = parser.parse(smiles.strip()).graph();
    String found =
        IntStream.range(0, graph.nodeCount())
            .mapToObj(node -> row(graph, node))
            .collect(Collectors.joining("; "));
    assertThat(found).isEqualTo(expected.strip());
  }

  private static String row(MoleculeGraph graph, int node) {
    return IntStream.range(0, MoleculeGraph.FEATURES)
        .mapToObj(feature -> String.valueOf((int) graph.feature(node, feature)))
        .collect(Collectors.joining(" "));
  }

  @Test
  void featuresAgreeWithRdkit() {
    int[] atoms = new int[2];
    int[] different = new int[2];
    List<String> drugLike = new ArrayList<>();
    for (String[] golden : Golden.rows("feature-golden.tsv.gz")) {
      int source = golden[0].equals("moses") ? 0 : 1;
      MoleculeGraph graph;
      try {
        graph = parser.parse(golden[1]).graph();
      } catch (MoleculeException e) {
        assertThat(source).as(e.getMessage()).isEqualTo(1);
        continue;
      }
      String[] rows = golden[2].split(";");
      assertThat(graph.nodeCount()).as(golden[1]).isEqualTo(rows.length);
      for (int node = 0; node < rows.length; node++) {
        atoms[source]++;
        if (!rows[node].equals(row(graph, node).replace(' ', ','))) {
          different[source]++;
          if (source == 0) {
            drugLike.add(golden[1] + " atom " + node + ": RDKit " + rows[node] + ", here " + row(graph, node));
          }
        }
      }
    }
    assertThat(drugLike).isEmpty();
    // Common chemicals hold metals, bare ions and perchlorates, on which programs differ.
    assertThat(different[1]).isLessThan(atoms[1] / 200);
    assertThat(atoms[0]).isGreaterThan(15_000);
    assertThat(atoms[1]).isGreaterThan(15_000);
  }

  @Test
  void edgesAreBothDirectionsOfEveryBondByTarget() {
    MoleculeGraph graph = parser.parse("C1CC1O").graph();
    assertThat(graph.rowPtr()).containsExactly(0, 2, 4, 7, 8);
    assertThat(graph.source()).containsExactly(1, 2, 0, 2, 0, 1, 3, 2);
    assertThat(graph.edgeCount()).isEqualTo(8);
    MoleculeGraph salt = parser.parse("[Na+].[Cl-]").graph();
    assertThat(salt.rowPtr()).containsExactly(0, 0, 0);
    assertThat(salt.source()).isEmpty();
  }

  @Test
  void writingDoesNotMatter() {
    MoleculeParser.Molecule aromatic = parser.parse("c1ccccc1O");
    MoleculeParser.Molecule kekule = parser.parse("C1=CC=CC=C1O");
    assertThat(kekule).isEqualTo(aromatic);
    assertThat(aromatic.heavyAtoms()).isEqualTo(7);
    assertThat(parser.parse("[H]O[H]")).isEqualTo(parser.parse("O"));
  }

  @Test
  void accessorsDoNotLetChangesIn() {
    MoleculeGraph graph = parser.parse("CC").graph();
    graph.features()[0] = 9;
    graph.source()[0] = 9;
    graph.rowPtr()[0] = 9;
    assertThat(graph).isEqualTo(parser.parse("CC").graph());
    assertThatThrownBy(() -> graph.feature(0, 6)).isInstanceOf(IndexOutOfBoundsException.class);
  }

  @Test
  void saysWhyAStringIsNoMolecule() {
    assertThatThrownBy(() -> parser.parse("c1cccc1"))
        .isInstanceOf(MoleculeException.class)
        .hasMessageContaining("c1cccc1");
    assertThatThrownBy(() -> parser.parse("CC(C)(C)(C)C"))
        .isInstanceOfSatisfying(
            MoleculeException.class, e -> assertThat(e.kind()).isEqualTo(BadRecordReport.Reason.INVALID_VALENCE))
        .hasMessageContaining("atom 2 (C) has valence 5 where at most 4 is allowed");
  }

  @Test
  void hugeMoleculesAreRefusedInsteadOfExhaustingStackOrTime() {
    assertThat(parser.parse("C".repeat(MoleculeParser.MAX_HEAVY_ATOMS)).heavyAtoms()).isEqualTo(1000);
    List<String> huge =
        List.of(
            "C".repeat(1001),
            "C".repeat(20_000),
            "c1ccccc1".repeat(3000),
            "C(".repeat(5000) + "C" + ")".repeat(5000),
            "[CH2]".repeat(200_000));
    for (String smiles : huge) {
      assertThatThrownBy(() -> parser.parse(smiles))
          .isInstanceOfSatisfying(
              MoleculeException.class, e -> assertThat(e.kind()).isEqualTo(BadRecordReport.Reason.TOO_MANY_ATOMS));
      assertThat(Chemistry.isValid(smiles)).isFalse();
    }
  }

  @Test
  void threadsGetTheSameAnswers() {
    List<String> smiles =
        Golden.rows("feature-golden.tsv.gz").stream().map(row -> row[1]).filter(Chemistry::isValid).limit(400).toList();
    List<MoleculeParser.Molecule> alone = smiles.stream().map(parser::parse).toList();
    List<MoleculeParser.Molecule> together = smiles.parallelStream().map(parser::parse).toList();
    assertThat(together).isEqualTo(alone);
  }
}
