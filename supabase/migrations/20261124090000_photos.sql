-- Photos by which subjects are known. Their files are in the station's home, and here is what is said of them.
-- A running older version sees a new table, which it mirrors as any other from its next start on.

create table public.photos (
  -- Of subject and file: the same photo of the same subject is one row, whoever adds it.
  id uuid primary key,
  subject_id uuid not null references public.subjects (id) on delete cascade,
  -- Of the file as it is kept, in hexadecimal.
  sha256 text not null check (sha256 ~ '^[0-9a-f]{64}$'),
  media_type text not null check (media_type in ('image/jpeg', 'image/png', 'image/webp')),
  bytes integer not null check (bytes between 1 and 10485760),
  taken_at timestamptz,
  caption text check (length(caption) between 1 and 500),
  created_at timestamptz not null default now()
);
create index photos_subject on public.photos (subject_id, created_at, id);

alter table public.photos enable row level security;
create policy app on public.photos to pugmark_app using (true) with check (true);
create policy reader on public.photos for select to pugmark_reader using (true);
grant select, insert, update, delete on public.photos to pugmark_app;
grant select on public.photos to pugmark_reader;

-- Edited, although nobody does: of a photo that two stations add the later row then is the one of both.
select sync.mirror('public.photos', is_edited => true, rank => 20);

create policy member on public.photos for select to authenticated
  using ((select exists (select from public.members where user_id = (select auth.uid()))));
grant select on public.photos to authenticated;
