"""Result rows as other systems read them: CSV, Parquet, FHIR, DICOM SR and secondary capture. Nothing is scored here."""
