// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.List;
import net.jqwik.api.Arbitraries;
import net.jqwik.api.Arbitrary;
import net.jqwik.api.ForAll;
import net.jqwik.api.Property;
import net.jqwik.api.Provide;

class SelfiesPropertyTest {
  private static final Selfies OCTET = Selfies.with(SelfiesConstraints.preset("octet_rule"));

  @Provide
  Arbitrary<String> robustStrings() {
    return strings(SelfiesConstraints.standard());
  }

  @Provide
  Arbitrary<String> octetStrings() {
    return strings(OCTET.constraints());
  }

  private static Arbitrary<String> strings(SelfiesConstraints constraints) {
    List<String> alphabet = List.copyOf(constraints.robustAlphabet());
    return Arbitraries.of(alphabet).list().ofMinSize(1).ofMaxSize(70).map(symbols -> String.join("", symbols));
  }

  @Property(tries = 1500)
  void everyStringOfTheRobustAlphabetIsAMolecule(@ForAll("robustStrings") String selfies) {
    String smiles = Selfies.standard().decode(selfies);
    if (!smiles.isEmpty()) {
      assertThat(Chemistry.fault(smiles)).as(smiles).isEmpty();
    }
  }

  @Property(tries = 500)
  void soItIsUnderTheOctetRule(@ForAll("octetStrings") String selfies) {
    String smiles = OCTET.decode(selfies);
    if (!smiles.isEmpty()) {
      assertThat(Chemistry.fault(smiles)).as(smiles).isEmpty();
    }
  }

  @Property(tries = 800)
  void encodingWhatWasDecodedKeepsTheMolecule(@ForAll("robustStrings") String selfies) {
    Selfies codec = Selfies.standard();
    String once = codec.decode(selfies);
    if (!once.isEmpty()) {
      String again = codec.decode(codec.encode(once));
      assertThat(Chemistry.canonical(again)).isEqualTo(Chemistry.canonical(once));
      assertThat(codec.decode(codec.encode(again))).isEqualTo(again);
    }
  }

  @Property(tries = 1000)
  void anyTextIsTranslatedOrRefused(@ForAll String text) {
    refusesOnly(() -> Selfies.standard().encode(text));
    refusesOnly(() -> Selfies.standard().decode(text));
    Chemistry.isValid(text);
  }

  @Property(tries = 3000)
  void smilesLikeTextIsTranslatedOrRefused(@ForAll("smilesLike") String text) {
    refusesOnly(() -> Selfies.standard().encode(text));
    Chemistry.isValid(text);
  }

  @Provide
  Arbitrary<String> smilesLike() {
    return Arbitraries.strings().withChars("CNOcnos[]()=#12%@H+-/\\.:ClBr").ofMaxLength(20);
  }

  private static void refusesOnly(Runnable translation) {
    try {
      translation.run();
    } catch (SelfiesException e) {
      assertThat(e.getMessage()).isNotBlank();
    }
  }
}
