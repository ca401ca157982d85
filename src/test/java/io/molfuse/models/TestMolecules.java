// SPDX-License-Identifier: Apache-2.0
package io.molfuse.models;

import io.molfuse.chem.MoleculeDataset;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;

/** Some drugs, and models small enough for tests. */
public final class TestMolecules {
  /** Thirty-two well-known drugs. */
  public static final List<String> DRUGS =
      List.of(
          "CC(=O)Oc1ccccc1C(=O)O aspirin",
          "CC(C)Cc1ccc(cc1)C(C)C(=O)O ibuprofen",
          "CC(=O)Nc1ccc(O)cc1 paracetamol",
          "Cn1cnc2c1c(=O)n(C)c(=O)n2C caffeine",
          "CN1CCCC1c1cccnc1 nicotine",
          "COc1ccc2cc(ccc2c1)C(C)C(=O)O naproxen",
          "OC(=O)Cc1ccccc1Nc1c(Cl)cccc1Cl diclofenac",
          "CN(C)CCCN1c2ccccc2CCc2ccccc12 imipramine",
          "CNCCC(Oc1ccc(cc1)C(F)(F)F)c1ccccc1 fluoxetine",
          "CN1C(=O)CN=C(c2ccccc2)c2cc(Cl)ccc12 diazepam",
          "NC(=O)N1c2ccccc2C=Cc2ccccc12 carbamazepine",
          "CC(C)NCC(O)COc1cccc2ccccc12 propranolol",
          "CC(C)NCC(O)COc1ccc(CC(N)=O)cc1 atenolol",
          "CCN(CC)CC(=O)Nc1c(C)cccc1C lidocaine",
          "Nc1ccc(cc1)S(N)(=O)=O sulfanilamide",
          "Cc1cc(NS(=O)(=O)c2ccc(N)cc2)no1 sulfamethoxazole",
          "COc1cc(Cc2cnc(N)nc2N)cc(OC)c1OC trimethoprim",
          "Cc1ncc([N+](=O)[O-])n1CCO metronidazole",
          "CN(C)C(=N)NC(N)=N metformin",
          "CCOC(=O)c1ccc(N)cc1 benzocaine",
          "OC(c1ccccc1)(c1ccccc1)C1CCNCC1 azacyclonol",
          "CN(C)CCOC(c1ccccc1)c1ccccc1 diphenhydramine",
          "CC(N)Cc1ccccc1 amphetamine",
          "NCC1(CC(=O)O)CCCCC1 gabapentin",
          "CCC1(c2ccccc2)C(=O)NC(=O)NC1=O phenobarbital",
          "O=C1NC(=O)C(c2ccccc2)(c2ccccc2)N1 phenytoin",
          "NNC(=O)c1ccncc1 isoniazid",
          "NC(=O)c1cnccn1 pyrazinamide",
          "CC(C)(C)NCC(O)c1ccc(O)c(CO)c1 salbutamol",
          "Clc1ccc(cc1)C(c1ccccc1)N1CCNCC1 norchlorcyclizine",
          "CCCC(CCC)C(=O)O valproate",
          "OC(=O)c1ccccc1O salicylate");

  private TestMolecules() {}

  /** Writes lines to a file of a folder. */
  public static Path file(Path folder, List<String> lines) {
    try {
      return Files.write(folder.resolve("molecules.smi"), lines);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  /** The drugs as a data set. */
  public static MoleculeDataset drugs(Path folder) {
    return MoleculeDataset.load(file(folder, DRUGS), new MoleculeDataset.Options().maxLength(64));
  }

  /** A model of every kind of layer; half a hundred thousand parameters. */
  public static ModelConfig config(double dropout) {
    return new ModelConfig(
        new ModelConfig.Encoder(3, 2, 2, 16, dropout),
        new ModelConfig.Latent(1, 24, 3, dropout),
        new ModelConfig.Decoder(3, 2, 32, 64, 64, 12, dropout));
  }
}
