//! Reading a list to its end, whatever size of page the server gives.
//!
//! The reference says that a page skips `pageSize * pageNumber` items, and not how many items a page
//! has at most. If the server gives fewer than it was asked for, it may count pages in its own size or
//! in ours. Both are the same once it is asked for what it gave, so a first page that comes short sets
//! the size of all. A list ends with an empty page and with nothing else.

use std::collections::HashSet;

use uuid::Uuid;

/// Most items that a page is asked for.
pub const PAGE_SIZE: usize = 100;

/// Most pages that a list may have. A list that is longer has no end, or is too long to compare.
pub const PAGES_MAX: usize = 1_000;

/// Which part of a list to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Its number, from zero.
    pub number: usize,
    /// Most items in it.
    pub size: usize,
}

/// Why a list cannot be read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PagingError {
    /// A page has only what earlier ones had.
    #[error("page {0} repeats what came before: the server does not page as documented")]
    Repeats(usize),
    /// More than [`PAGES_MAX`] pages.
    #[error("there are more than {PAGES_MAX} pages")]
    Endless,
}

/// A list on its way to its end.
#[derive(Debug)]
pub struct Paging {
    page: Page,
    seen: HashSet<Uuid>,
}

impl Default for Paging {
    fn default() -> Self {
        Self { page: Page { number: 0, size: PAGE_SIZE }, seen: HashSet::new() }
    }
}

impl Paging {
    /// The page to ask for next.
    #[must_use]
    pub fn page(&self) -> Page {
        self.page
    }

    /// Takes the ids on the page. Answers which of them are new, or nothing if the list has ended.
    ///
    /// # Errors
    /// [`PagingError`]; what was read is then no whole list.
    pub fn took(&mut self, ids: &[Uuid]) -> Result<Option<Vec<bool>>, PagingError> {
        if ids.is_empty() {
            return Ok(None);
        }
        let fresh: Vec<bool> = ids.iter().map(|id| self.seen.insert(*id)).collect();
        if !fresh.contains(&true) {
            return Err(PagingError::Repeats(self.page.number));
        }
        if self.page.number == 0 {
            self.page.size = ids.len();
        }
        self.page.number = self.page.number.saturating_add(1);
        if self.page.number > PAGES_MAX { Err(PagingError::Endless) } else { Ok(Some(fresh)) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// How a server that gives fewer items than asked for counts what it skips.
    #[derive(Clone, Copy, Debug)]
    enum Skips {
        AsAsked,
        AsGiven,
    }

    fn read(
        list: &[Uuid],
        serve: impl Fn(Page) -> Vec<Uuid>,
    ) -> Result<(Vec<Uuid>, usize), PagingError> {
        let (mut paging, mut found, mut asked) = (Paging::default(), Vec::new(), 0);
        loop {
            let ids = serve(paging.page());
            asked += 1;
            match paging.took(&ids)? {
                None => return Ok((found, asked)),
                Some(fresh) => {
                    found.extend(
                        ids.into_iter().zip(fresh).filter(|(_, new)| *new).map(|(id, _)| id),
                    );
                }
            }
            assert!(asked <= list.len() + 2);
        }
    }

    proptest! {
        #[test]
        fn every_item_is_found_whatever_size_the_server_allows(
            count in 0_usize..450,
            most in 1_usize..150,
            as_asked: bool,
        ) {
            let list: Vec<Uuid> = (0..count).map(|_| Uuid::new_v4()).collect();
            let skips = if as_asked { Skips::AsAsked } else { Skips::AsGiven };
            let (found, asked) = read(&list, |page| {
                let size = page.size.min(most);
                let skip = match skips {
                    Skips::AsAsked => page.size * page.number,
                    Skips::AsGiven => size * page.number,
                };
                list.iter().skip(skip).take(size).copied().collect()
            }).unwrap();
            prop_assert_eq!(found, list);
            prop_assert!(asked <= count.div_ceil(most.min(PAGE_SIZE)) + 1);
        }
    }

    #[test]
    fn a_page_that_repeats_is_noticed() {
        let list: Vec<Uuid> = (0..7).map(|_| Uuid::new_v4()).collect();
        assert_eq!(read(&list, |_| list.clone()), Err(PagingError::Repeats(1)));
    }

    #[test]
    fn a_list_without_an_end_is_given_up() {
        let mut paging = Paging::default();
        let end = (0..).find_map(|page| {
            let ids: Vec<Uuid> = (0..paging.page().size).map(|_| Uuid::new_v4()).collect();
            paging.took(&ids).err().map(|error| (page, error))
        });
        assert_eq!(end, Some((PAGES_MAX, PagingError::Endless)), "no page of them is lost");
    }
}
