// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class MoleculeInputTest {
  @TempDir Path folder;

  private List<MoleculeInput.Item> items(String name, String content, String column, String nameColumn) throws IOException {
    List<MoleculeInput.Item> items = new ArrayList<>();
    try (MoleculeInput input = MoleculeInput.open(Files.writeString(folder.resolve(name), content), column, nameColumn)) {
      for (MoleculeInput.Item item = input.next(); item != null; item = input.next()) {
        items.add(item);
      }
      assertThat(input.next()).isNull();
    }
    return items;
  }

  @Test
  void readsTables() throws IOException {
    String csv = "\uFEFFid,\"the, name\",SMILES,x\n1,\"a \"\"b\"\"\",CCO,2\n\n2,c, CC |cx| ,3\n";
    List<MoleculeInput.Item> items = items("a.csv", csv, null, "the, name");
    assertThat(items).extracting(item -> item.at().smiles()).containsExactly("CCO", "CC");
    assertThat(items).extracting(item -> item.at().name()).containsExactly("a \"b\"", "c");
    assertThat(items).extracting(item -> item.at().line()).containsExactly(2L, 4L);
    assertThat(items("b.csv", "a;mol\n1;CC\n", "mol", null)).extracting(item -> item.at().smiles()).containsExactly("CC");
    assertThat(items("c.tsv", "structure\tn\nC,C\tq\n", null, "n")).extracting(item -> item.at().smiles()).containsExactly("C,C");
  }

  @Test
  void badRowsAreSaidWithTheirLines() throws IOException {
    List<MoleculeInput.Item> items = items("a.csv", "n,smiles\n1\n2,\"CC\n3,CCC\n4,\n", null, null);
    assertThat(items).extracting(MoleculeInput.Item::reason).containsExactly(
        BadRecordReport.Reason.UNREADABLE_LINE, BadRecordReport.Reason.UNREADABLE_LINE, null, null);
    assertThat(items.get(0).detail()).contains("1 fields").contains("column 2");
    assertThat(items.get(1).detail()).contains("quote");
    assertThat(items.get(1).at().line()).isEqualTo(3);
    assertThat(items.get(3).at().smiles()).isEmpty();
  }

  @Test
  void tablesNeedTheColumn() {
    assertThatThrownBy(() -> items("a.csv", "n,mol\n1,CC\n", null, null))
        .isInstanceOf(ChemDataException.class)
        .hasMessageContaining("no column smiles")
        .hasMessageContaining("[n, mol]")
        .hasMessageContaining("--column");
    assertThatThrownBy(() -> items("b.csv", "n,mol\n", "structure", null)).hasMessageContaining("no column structure");
    assertThatThrownBy(() -> items("c.csv", "", null, null)).hasMessageContaining("empty");
    assertThatThrownBy(() -> items("d.csv", "smiles\n", null, "name")).hasMessageContaining("no column name");
  }

  @Test
  void skipsToALine() throws IOException {
    Path file = Files.writeString(folder.resolve("a.smi"), "C a\n# no\nCC b\n\nCCC\n");
    try (MoleculeInput input = MoleculeInput.open(file, null, null)) {
      input.skipTo(3);
      assertThat(input.next().at()).isEqualTo(new MoleculeRecord("CCC", "", file, 5));
      assertThat(input.bytesRead()).isEqualTo(Files.size(file));
    }
  }
}
