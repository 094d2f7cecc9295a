//! Pages whose own counts are held against their bytes before the library makes room for so many values.

use parquet::{
    basic::Encoding,
    column::page::{Page, PageMetadata, PageReader},
    errors::{ParquetError, Result},
    file::{
        metadata::{ParquetMetaData, RowGroupMetaData},
        reader::{FileReader, RowGroupReader},
    },
    record::reader::RowIter,
    schema::types::Type,
};

/// A file, or one of its row groups, or the pages of one of their columns.
pub(super) struct Checked<T>(pub(super) T);

impl<R: FileReader> FileReader for Checked<R> {
    fn metadata(&self) -> &ParquetMetaData {
        self.0.metadata()
    }

    fn num_row_groups(&self) -> usize {
        self.0.num_row_groups()
    }

    fn get_row_group(&self, index: usize) -> Result<Box<dyn RowGroupReader + '_>> {
        Ok(Box::new(Checked(self.0.get_row_group(index)?)))
    }

    fn get_row_iter(&self, projection: Option<Type>) -> Result<RowIter<'_>> {
        RowIter::from_file(projection, self)
    }
}

impl RowGroupReader for Checked<Box<dyn RowGroupReader + '_>> {
    fn metadata(&self) -> &RowGroupMetaData {
        self.0.metadata()
    }

    fn num_columns(&self) -> usize {
        self.0.num_columns()
    }

    fn get_column_page_reader(&self, column: usize) -> Result<Box<dyn PageReader>> {
        let column_of = self.metadata().schema_descr().column(column);
        Ok(Box::new(Pages {
            pages: self.0.get_column_page_reader(column)?,
            levels: [column_of.max_rep_level(), column_of.max_def_level()],
        }))
    }

    fn get_column_bloom_filter(&self, column: usize) -> Option<&parquet::bloom_filter::Sbbf> {
        self.0.get_column_bloom_filter(column)
    }

    fn get_row_iter(&self, projection: Option<Type>) -> Result<RowIter<'_>> {
        RowIter::from_row_group(projection, self)
    }
}

/// The pages of a column.
struct Pages {
    pages: Box<dyn PageReader>,
    /// Highest level of repetition and of definition.
    levels: [i16; 2],
}

impl Pages {
    fn checked(&self, page: Page) -> Result<Page> {
        let count = page.num_values() as usize;
        let counted = match &page {
            // A value takes a byte at least, and an empty one of a fixed length nobody writes.
            Page::DictionaryPage { buf, .. } => count <= buf.len(),
            Page::DataPage { buf, encoding, .. } if has_counts(*encoding) => {
                self.values_of(buf).and_then(counted) <= Some(count)
            }
            Page::DataPageV2 {
                buf,
                encoding,
                def_levels_byte_len,
                rep_levels_byte_len,
                ..
            } if has_counts(*encoding) => {
                let levels = *def_levels_byte_len as usize + *rep_levels_byte_len as usize;
                buf.get(levels..).and_then(counted) <= Some(count)
            }
            _ => true,
        };
        match counted {
            true => Ok(page),
            false => Err(ParquetError::General(format!(
                "a page of {} bytes does not hold the {count} values that it speaks of",
                page.buffer().len()
            ))),
        }
    }

    /// What follows the levels, which say themselves how long they are.
    fn values_of<'a>(&self, page: &'a [u8]) -> Option<&'a [u8]> {
        let mut rest = page;
        for _ in self.levels.iter().filter(|level| **level > 0) {
            let (len, after) = rest.split_first_chunk()?;
            rest = after.get(u32::from_le_bytes(*len) as usize..)?;
        }
        Some(rest)
    }
}

/// Whether values begin with a count of their own.
fn has_counts(encoding: Encoding) -> bool {
    matches!(
        encoding,
        Encoding::DELTA_LENGTH_BYTE_ARRAY
            | Encoding::DELTA_BYTE_ARRAY
            | Encoding::DELTA_BINARY_PACKED
    )
}

/// The count with which delta-encoded values begin: after the size of a block and the number of its parts. None counts as none at all.
fn counted(values: &[u8]) -> Option<usize> {
    let mut bytes = values.iter();
    let mut number = || {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = *bytes.next()?;
            number |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    };
    let (_block, _parts) = (number()?, number()?);
    usize::try_from(number()?).ok()
}

impl Iterator for Pages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Result<Page>> {
        self.get_next_page().transpose()
    }
}

impl PageReader for Pages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        let page = self.pages.get_next_page()?;
        page.map(|page| self.checked(page)).transpose()
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.pages.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.pages.skip_next_page()
    }

    fn at_record_boundary(&mut self) -> Result<bool> {
        self.pages.at_record_boundary()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delta_encoding_says_how_many_values_follow() {
        // Blocks of 128 in 4 parts, 300 values.
        assert_eq!(counted(&[0x80, 0x01, 0x04, 0xac, 0x02, 0x00]), Some(300));
        assert_eq!(counted(&[0x80]), None);
    }
}
