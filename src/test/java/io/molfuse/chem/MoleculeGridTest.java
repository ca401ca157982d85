// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.awt.image.BufferedImage;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import javax.imageio.ImageIO;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class MoleculeGridTest {
  @TempDir Path folder;

  /** Whether a cell has anything but white in it. */
  private static boolean drawn(BufferedImage picture, int columns, int rows, int column, int row) {
    int width = picture.getWidth() / columns;
    int height = picture.getHeight() / rows;
    for (int x = column * width; x < (column + 1) * width; x++) {
      for (int y = row * height; y < (row + 1) * height; y++) {
        if ((picture.getRGB(x, y) & 0xFFFFFF) != 0xFFFFFF) {
          return true;
        }
      }
    }
    return false;
  }

  @Test
  void moleculesStandInRowsAndColumnsOfOneSize() throws IOException {
    Path file = folder.resolve("grid.png");
    MoleculeGrid.write(List.of("CCO", "", "C1CC(", "c1ccccc1", "C".repeat(60)), List.of(), 3, file);
    BufferedImage picture = ImageIO.read(file.toFile());
    boolean[] expected = {true, false, false, true, true, false};
    for (int cell = 0; cell < 6; cell++) {
      assertThat(drawn(picture, 3, 2, cell % 3, cell / 3)).as("cell %d", cell).isEqualTo(expected[cell]);
    }
    MoleculeGrid.write(List.of("CCO"), List.of(), 3, file);
    assertThat(ImageIO.read(file.toFile()).getWidth()).isEqualTo(picture.getWidth() / 3);
  }

  @Test
  void svgHasOneCellAMolecule() throws IOException {
    Path file = folder.resolve("grid.SVG");
    MoleculeGrid.write(List.of("CCO", "CC", "CN"), List.of("one", "two", "three"), 2, file);
    assertThat(Files.readString(file).split("<svg ")).hasSize(5);
    assertThat(Files.readString(file)).doesNotContain(" id=", "<?xml ", "<!DOCTYPE");
  }

  @Test
  void mistakesAreNamed() {
    assertThatThrownBy(() -> MoleculeGrid.write(List.of("C"), List.of(), 3, folder.resolve("a.gif"))).hasMessageContaining(".png or .svg");
    assertThatThrownBy(() -> MoleculeGrid.write(List.of(), List.of(), 3, folder.resolve("a.svg"))).hasMessageContaining("1 to 1000");
    assertThatThrownBy(() -> MoleculeGrid.write(List.of("C"), List.of("a", "b"), 3, folder.resolve("a.svg")))
        .hasMessageContaining("captions");
    for (String name : List.of("nowhere/a.svg", "nowhere/a.png")) {
      assertThatThrownBy(() -> MoleculeGrid.write(List.of("C"), List.of(), 3, folder.resolve(name)))
          .isInstanceOf(ChemDataException.class)
          .hasMessageContaining("cannot be written");
    }
  }
}
