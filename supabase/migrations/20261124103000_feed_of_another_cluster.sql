-- A feed that came with a dump is numbered by the transactions of the cluster it was made in. In one that has counted less,
-- "up to here it is no longer whole" was true of every place, and whoever read everything anew found that it had to again.
-- A running older version asks as before, and gets out of it.

-- Numbers that this cluster has not come to yet. Our own may be beyond the snapshot, too.
create function sync.is_of_another_cluster(xid xid8) returns boolean language sql stable
return xid >= pg_snapshot_xmax(pg_current_snapshot()) and xid is distinct from pg_current_xact_id_if_assigned();

-- What is not numbered here goes, and whoever read the feed before reads everything anew, once.
create function sync.begin_feed_anew() returns void
language plpgsql security definer set search_path = '' as $$
begin
  -- Looked for first, since a project whose disk is full can only be read.
  if exists (
    select from sync.state where is_feed and (
      sync.is_of_another_cluster(feed_trimmed_xid)
      or sync.is_of_another_cluster((select xid from sync.changes order by xid desc limit 1))
    )
  ) then
    delete from sync.changes where sync.is_of_another_cluster(xid);
    -- The last that has ended: whoever asks for the end of the feed from now on is told a later one.
    update sync.state set feed_trimmed_xid = (pg_snapshot_xmin(pg_current_snapshot())::text::bigint - 1)::text::xid8;
  end if;
end
$$;

-- It is what everybody asks for before reading everything. Of a large feed, deleting takes more than the eight seconds that a
-- project gives the service role.
create or replace function public.sync_head() returns jsonb
language plpgsql set search_path = '' set statement_timeout = '10min' as $$
begin
  perform sync.begin_feed_anew();
  return jsonb_build_object(
    'xid', pg_snapshot_xmin(pg_current_snapshot())::text, 'seq', 0, 'project', sync.own_station()
  );
end
$$;

revoke execute on function sync.is_of_another_cluster(xid8), sync.begin_feed_anew() from public;
grant execute on function sync.begin_feed_anew() to service_role;
