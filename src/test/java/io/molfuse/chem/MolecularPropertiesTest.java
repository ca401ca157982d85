// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;

class MolecularPropertiesTest {
  private static final List<String> NAMES =
      List.of("weight", "logP", "QED", "TPSA", "rings", "donors", "acceptors", "rotatable", "SA", "aromatic", "Morgan", "filters");

  /** How each value of a molecule differs from RDKit's; empty if none does. */
  private static Map<String, String> differences(PerceivedMolecule molecule, String[] golden) {
    MolecularProperties p = MolecularProperties.of(molecule);
    double[] values = {
      p.weight(), p.logP(), p.qed(), p.tpsa(), p.rings(), p.donors(), p.acceptors(), p.rotatableBonds(),
      SyntheticAccessibility.score(molecule)
    };
    Map<String, String> found = new TreeMap<>();
    for (int i = 0; i < values.length; i++) {
      double expected = Double.parseDouble(golden[2 + i]);
      if (!(Math.abs(values[i] - expected) <= 1e-3)) {
        found.put(NAMES.get(i), expected + ", here " + values[i]);
      }
    }
    String aromatic =
        IntStream.range(0, molecule.count).mapToObj(atom -> molecule.aromatic[atom] ? "1" : "0").collect(Collectors.joining());
    String bits =
        Arrays.stream(MorganFingerprint.bits(molecule))
            .mapToObj(word -> String.format("%016x", Long.reverse(word)))
            .collect(Collectors.joining());
    String[] texts = {aromatic, bits, StructureFilters.reason(molecule).isEmpty() ? "1" : "0"};
    for (int i = 0; i < texts.length; i++) {
      if (!texts[i].equals(golden[11 + i])) {
        found.put(NAMES.get(9 + i), golden[11 + i] + ", here " + texts[i]);
      }
    }
    return found;
  }

  @Test
  void agreesWithRdkit() {
    Map<String, Integer> molecules = new HashMap<>();
    Map<String, List<String>> different = new TreeMap<>();
    for (String[] golden : Golden.rows("property-golden.tsv.gz")) {
      PerceivedMolecule molecule;
      try {
        molecule = PerceivedMolecule.of(golden[1]);
      } catch (MoleculeException e) {
        assertThat(golden[0]).as(e.getMessage()).isEqualTo("pubchem");
        continue;
      }
      molecules.merge(golden[0], 1, Integer::sum);
      differences(molecule, golden)
          .forEach((name, how) -> different.computeIfAbsent(golden[0], k -> new ArrayList<>()).add(golden[1] + " " + name + " " + how));
    }
    if (Boolean.getBoolean("molfuse.show")) {
      different.forEach((source, list) -> list.stream().sorted().forEach(text -> System.out.println(source + " " + text)));
    }
    assertThat(molecules.get("moses")).isGreaterThan(2000);
    assertThat(different.getOrDefault("moses", List.of())).hasSizeLessThanOrEqualTo(molecules.get("moses") / 1000);
  }

  @Test
  void knownValues() {
    MolecularProperties aspirin = MolecularProperties.of("CC(=O)Oc1ccccc1C(=O)O");
    assertThat(aspirin.weight()).isCloseTo(180.159, within(1e-3));
    assertThat(aspirin.logP()).isCloseTo(1.3101, within(1e-3));
    assertThat(aspirin.tpsa()).isCloseTo(63.60, within(1e-3));
    assertThat(aspirin.rings()).isEqualTo(1);
    assertThat(aspirin.donors()).isEqualTo(1);
    assertThat(aspirin.heavyAtoms()).isEqualTo(13);
  }

  @Test
  void writingDoesNotMatter() {
    assertThat(MolecularProperties.of("OC(=O)C1=CC=CC=C1OC(C)=O")).isEqualTo(MolecularProperties.of("O=C(O)c1ccccc1OC(=O)C"));
    assertThat(MorganFingerprint.of("C1=CC=CC=C1O")).isEqualTo(MorganFingerprint.of("Oc1ccccc1"));
    assertThat(MolecularProperties.of("C[N+](=O)[O-]")).isEqualTo(MolecularProperties.of("CN(=O)=O"));
  }

  @Test
  void similarityIsThatOfSets() {
    long[] phenol = MorganFingerprint.of("Oc1ccccc1");
    assertThat(MorganFingerprint.tanimoto(phenol, phenol)).isEqualTo(1);
    assertThat(MorganFingerprint.tanimoto(phenol, MorganFingerprint.of("C"))).isZero();
    assertThat(MorganFingerprint.tanimoto(phenol, MorganFingerprint.of("Nc1ccccc1"))).isBetween(0.2, 0.8);
  }

  @Test
  void refusesWhatIsNoMolecule() {
    assertThatThrownBy(() -> MolecularProperties.of("C1CC")).isInstanceOf(MoleculeException.class);
    assertThatThrownBy(() -> MorganFingerprint.of("")).isInstanceOf(MoleculeException.class);
    assertThatThrownBy(() -> StructureFilters.reason("c1cccc1")).isInstanceOf(MoleculeException.class);
  }

  @Test
  void filtersSayWhy() {
    assertThat(StructureFilters.reason("CCO")).isEmpty();
    assertThat(StructureFilters.reason("C[NH3+]")).contains("charged atom");
    assertThat(StructureFilters.reason("C1CCCCCCC1")).contains("ring of 8 atoms");
    assertThat(StructureFilters.reason("CCI")).contains("element I");
  }
}
