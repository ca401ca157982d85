// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.ByteArrayInputStream;
import java.nio.charset.StandardCharsets;
import javax.xml.parsers.DocumentBuilderFactory;
import org.junit.jupiter.api.Test;
import org.w3c.dom.Document;

class MoleculePictureTest {
  @Test
  void aPictureIsOneElementInTheColourOfTheTextAround() throws Exception {
    String svg = MoleculePicture.svg("CC(=O)Oc1ccccc1C(=O)O").orElseThrow();
    Document document =
        DocumentBuilderFactory.newInstance().newDocumentBuilder().parse(new ByteArrayInputStream(svg.getBytes(StandardCharsets.UTF_8)));
    assertThat(document.getDocumentElement().getTagName()).isEqualTo("svg");
    assertThat(document.getDocumentElement().getAttribute("viewBox")).isEqualTo("0 0 60.0 45.0");
    assertThat(document.getElementsByTagName("line").getLength()).isGreaterThan(12);
    // Letters of four oxygens.
    assertThat(document.getElementsByTagName("path").getLength()).isGreaterThanOrEqualTo(4);
    assertThat(svg).contains("currentColor").doesNotContain("#", " id=", " width='", "<!DOCTYPE");
  }

  @Test
  void whatIsNoMoleculeHasNoPicture() {
    assertThat(MoleculePicture.svg("C1CC(")).isEmpty();
    assertThat(MoleculePicture.svg("")).isEmpty();
  }
}
